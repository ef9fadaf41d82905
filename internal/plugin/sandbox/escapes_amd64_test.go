package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// escapesHere go around the filter by other ways into the kernel.
func escapesHere() []escape {
	return []escape{
		{name: "call by int 0x80", layer: Seccomp, try: func(victims) error {
			// mov eax, 20 (getpid of i386); int 0x80; ret
			return execute([]byte{0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3})
		}},
		{name: "call by the x32 interface", layer: Seccomp, try: func(victims) error {
			call(x32Bit | unix.SYS_GETPID)
			return nil
		}},
		{name: "change a mode by the old call", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			if err := open("old", unix.O_CREAT|unix.O_WRONLY, 0o600); err != nil {
				return err
			}
			return call(unix.SYS_CHMOD, cstring("old"), 0o777)
		}},
		{name: "set the setuid bit by creat", layer: Seccomp, blocked: byFilter, try: func(victims) error {
			return call(unix.SYS_CREAT, cstring("created"), 0o4755)
		}},
		{name: "reach the ports of the machine", layer: Seccomp, blocked: byFilter, rootOnly: true, try: func(victims) error { return call(unix.SYS_IOPERM, 0x80, 1, 1) }},
	}
}

// execute runs machine code.
func execute(code []byte) error {
	page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	copy(page, code)
	entry := &page[0]
	f := &entry
	(*(*func())(unsafe.Pointer(&f)))()
	return nil
}
