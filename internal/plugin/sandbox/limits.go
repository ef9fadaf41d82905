package sandbox

import (
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/osthread"
	"golang.org/x/sys/unix"
)

// leastData is what is left to a process for its data however little memory it
// was given: the runtime of Go begins with 64 MiB of it, and touches a few.
const leastData = 128 << 20

// mostStack is what a stack may grow to where that is limited: as much as is
// usual, because libraries give it to each thread.
const mostStack = 8 << 20

// putter returns what puts the limits on a process of an account that is held;
// 0 is none, when the process did not come to be. Who limits a process of another
// account needs CAP_SYS_RESOURCE, which root in a container often lacks. There it
// is done by a thread that becomes that account: meanwhile, as it takes a while.
// It is done only there, because other processes of the account may signal that
// thread, and so end all of us, where Landlock knows no signals.
func (l Limits) putter(account *Account, s Support) func(pid int) error {
	if account == nil || s.resource {
		return func(pid int) error {
			if pid == 0 {
				return nil
			}
			return l.set(pid, s)
		}
	}
	pids, done := make(chan int, 1), make(chan error, 1)
	go func() {
		done <- osthread.Run(func() error {
			for _, change := range []struct {
				name string
				call uintptr
				id   uint32
			}{{"setresgid", unix.SYS_SETRESGID, account.GID}, {"setresuid", unix.SYS_SETRESUID, account.UID}} {
				// Of this thread alone, which unix.Setresuid is not.
				if _, _, errno := unix.RawSyscall(change.call, uintptr(change.id), uintptr(change.id), uintptr(change.id)); errno != 0 {
					return os.NewSyscallError(change.name, errno)
				}
			}
			if pid := <-pids; pid != 0 {
				return l.set(pid, s)
			}
			return nil
		})
	}()
	return func(pid int) error { pids <- pid; return <-done }
}

func (l Limits) set(pid int, s Support) error {
	set := func(resource int, value uint64) error {
		limit := unix.Rlimit{Cur: value, Max: value}
		var now unix.Rlimit
		if err := unix.Prlimit(pid, resource, nil, &now); err == nil && now.Max < value {
			limit.Cur, limit.Max = now.Max, now.Max // we may be limited ourselves
		}
		return os.NewSyscallError("prlimit", unix.Prlimit(pid, resource, &limit, nil))
	}
	limits := []struct {
		resource int
		value    uint64
		wanted   bool
	}{
		{unix.RLIMIT_CORE, 0, true},
		{unix.RLIMIT_MSGQUEUE, 0, true},
		{unix.RLIMIT_MEMLOCK, 0, true},
		{unix.RLIMIT_NOFILE, l.Files, l.Files > 0},
		{unix.RLIMIT_FSIZE, l.FileBytes, l.FileBytes > 0},
		{unix.RLIMIT_CPU, uint64((l.CPU + time.Second - 1) / time.Second), l.CPU > 0},
		// A cgroup counts what is used; this counts what is asked for.
		{unix.RLIMIT_DATA, max(l.Memory, leastData), l.Memory > 0 && !s.Memory},
		{unix.RLIMIT_STACK, mostStack, l.Memory > 0 && !s.Memory}, // which is no data
		{unix.RLIMIT_NPROC, l.Tasks, l.Tasks > 0 && s.Root},       // of its account; root is exempt
	}
	for _, l := range limits {
		if l.wanted {
			if err := set(l.resource, l.value); err != nil {
				return err
			}
		}
	}
	return nil
}
