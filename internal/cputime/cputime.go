// Package cputime measures what something costs, for tests that hold a cost against a bar on machines that others use, too.
package cputime

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Took is how long do takes in time of this thread's processor: neither what others compute nor waiting counts. What do hands to other
// goroutines is not measured.
func Took(do func()) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := clock()
	do()
	return clock() - start
}

// clock is the thread's processor time (clock_gettime(2)); every Linux has it.
func clock() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(fmt.Sprintf("the clock of this thread: %v", err))
	}
	return time.Duration(now.Nano())
}
