//go:build !race

package policy

// raced says that the race detector looks on.
const raced = false
