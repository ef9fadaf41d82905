//go:build goexperiment.jsonv2

package main

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxResident is how many bytes of files may stay mapped into memory before
	// they are let go of.
	maxResident   = 40 << 20
	residentEvery = 50 * time.Millisecond
)

// keepSmall lets go of pages of this executable and of the database, now and again
// for as long as the process lives. The kernel maps sixteen pages where one is
// asked for, and of an executable of 150 MB and a database of 500 MB most of what
// is mapped in that way is never looked at. It costs next to nothing to have a page
// back, since its content stays in the page cache; but whoever limits the memory
// of this process counts it (VmRSS and VmHWM of proc_pid_status(5)).
func keepSmall() {
	page := int64(os.Getpagesize())
	for {
		if residentFiles()*page > maxResident {
			release()
		}
		time.Sleep(residentEvery)
	}
}

// residentFiles returns the third number of /proc/self/statm: pages of files.
func residentFiles() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b)
	if len(f) < 3 {
		return 0
	}
	n, _ := strconv.ParseInt(string(f[2]), 10, 64)
	return n
}

// release lets go of everything that is mapped from a file and cannot be written,
// so that nothing of it can be lost.
func release() {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range bytes.Lines(b) {
		// address perms offset dev inode pathname (proc_pid_maps(5))
		f := strings.Fields(string(line))
		if len(f) < 6 || !strings.HasPrefix(f[5], "/") || strings.Contains(f[1], "w") {
			continue
		}
		from, to, _ := strings.Cut(f[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			continue
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil || end <= start {
			continue
		}
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
	}
}
