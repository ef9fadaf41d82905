package isolation

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/nft"
	"golang.org/x/sys/unix"
)

// GuardLock is the name of the lock that a guard holds: there is one at a time,
// and it can be told from the lock who it is.
const GuardLock = "network-guard"

// Guarding tells of what a guard did.
type Guarding struct {
	Sealed func(i Interface) // an interface that appeared got its chains
	Ready  func(owned bool)  // called once, when it watches
}

// recheck is how often a guard looks at everything, whatever it was told.
const recheck = 5 * time.Second

// Guard watches over isolation in force until ctx ends: it owns the tables, so
// that nobody else can change or flush them, and seals interfaces as they
// appear. When isolation lapses, it takes the tables away and returns ErrLapsed;
// when it finds none, it returns ErrNotInForce. When it ends, however it ends,
// the tables stay as they are.
func Guard(ctx context.Context, g Guarding) error {
	links, err := watchLinks()
	if err != nil {
		return err
	}
	defer links.Close()
	c, err := nft.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	owned, err := own(c)
	if err != nil {
		return err
	}
	r, err := nft.OpenReader()
	if err != nil {
		return err
	}
	defer r.Close()
	for first := true; ; first = false {
		var now Status
		if err := now.read(r); err != nil {
			return err
		}
		switch {
		case !now.Present:
			return ErrNotInForce
		case !now.InForce:
			b := nft.NewBatch()
			for _, t := range now.found {
				b.DestroyTable(t)
			}
			if err := c.Commit(b); err != nil {
				return err
			}
			return ErrLapsed
		}
		if err := sealNew(c, r, g.Sealed); err != nil {
			return err
		}
		if first && g.Ready != nil {
			g.Ready(owned)
		}
		wait := recheck
		if now.Pending {
			wait = min(wait, now.Left+20*time.Millisecond)
		}
		if err := links.wait(ctx, wait); err != nil {
			return err
		}
	}
}

// own makes this process the owner of the tables, which the kernel can do since
// Linux 6.9.
func own(c *nft.Conn) (bool, error) {
	now, err := Read()
	if err != nil {
		return false, err
	}
	if !now.Present {
		return false, ErrNotInForce
	}
	b := nft.NewBatch()
	for _, t := range now.found {
		b.AddTable(t, nft.Owner|nft.Persist, "")
	}
	err = c.Commit(b)
	switch {
	case errors.Is(err, unix.EPERM) && now.Owner:
		return false, failure.Errorf(failure.Busy, "another program owns the tables of isolation")
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM):
		return false, nil // an older kernel, or tables that were made without the flags
	}
	return err == nil, err
}

// sealNew gives interfaces without chains theirs, and takes those away whose
// interface is gone.
func sealNew(c *nft.Conn, r *nft.Reader, tell func(Interface)) error {
	const attempts = 5
	for range attempts {
		open, err := unsealed(r)
		if err != nil {
			return err
		}
		// An interface that was renamed has chains, too: of the name that it had
		// before, and the kernel does not take another one for them.
		renamed := map[string]bool{}
		for _, i := range open.missing {
			renamed[chainOf("ingress", i.Index)], renamed[chainOf("egress", i.Index)] = true, true
		}
		b := nft.NewBatch()
		for name := range open.present {
			// Since Linux 6.16 a chain waits for another interface of that name when
			// its own is gone, so that it is to be told by the number.
			gone := !open.chains[name] && (strings.HasPrefix(name, "ingress_") || strings.HasPrefix(name, "egress_"))
			if renamed[name] || gone {
				b.FlushChain(netdev, name)
				b.DeleteChain(netdev, name)
			}
		}
		for _, i := range open.missing {
			seal(b, i)
		}
		if b.Empty() {
			return nil
		}
		err = c.Commit(b)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EEXIST) {
			continue // an interface went, or was renamed, meanwhile
		}
		if err != nil {
			return err
		}
		for _, i := range open.missing {
			if tell != nil {
				tell(i)
			}
		}
	}
	return nil
}

// linkWatch hears of interfaces that appear, change and go.
type linkWatch struct {
	fd int
	f  *os.File
}

func watchLinks() (*linkWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return &linkWatch{fd, os.NewFile(uintptr(fd), "rtnetlink")}, nil
}

// Close closes the socket.
func (w *linkWatch) Close() error { return w.f.Close() }

// wait returns when something was heard, when the time is over, or with the
// error of ctx.
func (w *linkWatch) wait(ctx context.Context, longest time.Duration) error {
	stop := context.AfterFunc(ctx, func() { w.f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := w.f.SetReadDeadline(time.Now().Add(longest)); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	buf := make([]byte, 64<<10)
	_, err := w.f.Read(buf)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	switch {
	case err == nil, errors.Is(err, unix.ENOBUFS), errors.Is(err, os.ErrDeadlineExceeded):
	default:
		return fmt.Errorf("watch interfaces: %w", err)
	}
	// What else is there belongs to the same look.
	if err := w.f.SetReadDeadline(time.Now()); err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	for err == nil || errors.Is(err, unix.ENOBUFS) {
		_, err = w.f.Read(buf)
	}
	return ctx.Err()
}
