package bridge

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// flagLRO is large receive offload: the card joins TCP segments and does not say how to cut them again, so that they cannot be
// passed on (ETH_FLAG_LRO, linux/ethtool.h). What the kernel joins by itself, and a card that keeps to its rules
// (rx-gro-hw), can be cut again, and stays on.
const flagLRO = 1 << 15

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ cmd, data uint32 }

// ethtoolFlags are the flags of a device in the kernel's older interface, which is enough here and everywhere.
type ethtoolFlags struct {
	sock int // any socket in the device's namespace
	nic  string
}

func (e ethtoolFlags) call(v *ethtoolValue) error {
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], e.nic)
	req.data = unsafe.Pointer(v)
	err := ioctl(e.sock, unix.SIOCETHTOOL, unsafe.Pointer(&req))
	runtime.KeepAlive(v)
	return err
}

// on returns which of some flags are set. A device that knows no flags has none.
func (e ethtoolFlags) on(of uint32) (uint32, error) {
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	err := e.call(&v)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return 0, nil
	}
	return v.data & of, err
}

// set switches flags on or off.
func (e ethtoolFlags) set(flags uint32, on bool) error {
	v := ethtoolValue{cmd: unix.ETHTOOL_GFLAGS}
	if err := e.call(&v); err != nil {
		return err
	}
	v.cmd = unix.ETHTOOL_SFLAGS
	if v.data &^= flags; on {
		v.data |= flags
	}
	return e.call(&v)
}
