package kernel

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value (linux/ethtool.h).
type ethtoolValue struct{ Cmd, Data uint32 }

// TxChecksum reports whether an interface leaves the checksums of what it
// sends to what is below it, or to hardware (ethtool -k, tx-checksumming). The
// error wraps ErrNoLink when there is none of that name.
func (k *Kernel) TxChecksum(name string) (on bool, err error) {
	v := ethtoolValue{Cmd: unix.ETHTOOL_GTXCSUM}
	if err := k.ethtool(name, &v); err != nil {
		return false, fmt.Errorf("read the checksum offload of %s: %w", name, err)
	}
	return v.Data != 0, nil
}

// SetTxChecksum switches that on or off (ethtool -K, tx). Segmentation by
// hardware, which needs it, goes off with it and comes back with it.
func (k *Kernel) SetTxChecksum(name string, on bool) error {
	v := ethtoolValue{Cmd: unix.ETHTOOL_STXCSUM}
	if on {
		v.Data = 1
	}
	if err := k.ethtool(name, &v); err != nil {
		return fmt.Errorf("set the checksum offload of %s: %w", name, err)
	}
	return nil
}

// ethtool does one request of SIOCETHTOOL (netdevice(7)).
func (k *Kernel) ethtool(name string, v *ethtoolValue) error {
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return fmt.Errorf("interface name %q: must have 1 to %d bytes", name, unix.IFNAMSIZ-1)
	}
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq's union
	}
	copy(req.name[:], name)
	req.data = unsafe.Pointer(v)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(k.ioctl), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	switch {
	case errors.Is(errno, unix.ENODEV):
		return ErrNoLink
	case errno != 0:
		return errno
	}
	return nil
}

// ChecksumsBroken reports whether the kernel is one of those before 5.8, which
// fill in checksums wrongly that a VXLAN device leaves to what is below it
// (documented Calico behaviour: ChecksumOffloadBroken).
func ChecksumsBroken() (bool, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false, fmt.Errorf("read the kernel's version: %w", err)
	}
	return brokenBefore(unix.ByteSliceToString(u.Release[:])), nil
}

// brokenBefore judges a release such as "5.4.0-91-generic". One that does not
// begin so is taken for new.
func brokenBefore(release string) bool {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return false
	}
	return major < 5 || major == 5 && minor < 8
}
