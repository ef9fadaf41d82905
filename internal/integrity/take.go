package integrity

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// TakeOptions say what baseline to take.
type TakeOptions struct {
	Name      string
	Policy    *policy.Policy
	IfMissing bool // do nothing when there is a baseline of that name
	// KeepContent is of which files the text is kept; empty: KeepNone.
	KeepContent KeepContent
	Aspects     []string // of the host, such as facts.Network; nil: files alone
	Scan
}

// Taken is what Take did.
type Taken struct {
	Entry    Entry
	Existed  bool // IfMissing, and there was one: nothing was done
	Elapsed  time.Duration
	Problems []Problem
	Facts    int       // about the host, beside its files
	Unknown  []Unknown // sources of facts that did not tell all
}

// Kind is what the result means for the exit status.
func (t *Taken) Kind() failure.Kind {
	if len(t.Problems) > 0 {
		return failure.Incomplete
	}
	return failure.None
}

// Take takes a baseline and makes it the current one of its name. What cannot
// be read is kept as such and listed; the baseline is then incomplete, and
// every check against it will say so.
func (e *Engine) Take(ctx context.Context, o TakeOptions) (*Taken, error) {
	if err := CheckName(o.Name); err != nil {
		return nil, err
	}
	lock, err := e.lock(ctx, o.Name, "integrity baseline")
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if o.IfMissing {
		c, err := e.Find(ctx, o.Name)
		if err == nil {
			return &Taken{Entry: c, Existed: true}, nil
		} else if !errors.Is(err, ErrNoBaseline) {
			return nil, err
		}
	}
	opts, err := o.options()
	if err != nil {
		return nil, err
	}

	hostName, machineID := host()
	tree, err := filepath.Abs(o.tree())
	if err != nil {
		return nil, err
	}
	started := time.Now()
	c := Entry{Header: baseline.Header{
		ID: newID(), Name: o.Name, Started: seconds(started), Host: hostName, MachineID: machineID,
		Tree: tree, Tool: e.Tool, UID: os.Geteuid(),
		PolicyName: o.Policy.Name, PolicyDigest: o.Policy.Digest(),
	}}
	w, err := baseline.Create(durable.Temp(e.path(o.Name+baseline.Ext)), e.file(c))
	if err != nil {
		return nil, err
	}
	defer w.Abort()

	t := &Taken{}
	unread := 0 // bytes in c.Unread
	m := o.Policy.Compile()
	opts.Select = &coverage{state: m.Root(), root: m.RootRule()}
	opts.CrossDevice = o.Policy.CrossFilesystems
	var rec baseline.Record
	var texts []baseline.Record // whose content is to be kept
	snapshot, err := e.takeFacts(ctx, &o, t)
	if err != nil {
		return nil, interrupted(err, "no baseline was taken")
	}
	if o.Aspects != nil && !slices.Contains(o.Aspects, facts.Files) {
		opts.Select = nothing{}
	}
	err = filehash.Walk(ctx, tree, opts, func(b *filehash.Batch) error {
		if b.Err != nil {
			t.Problems = append(t.Problems, dirProblem(b))
			if unread += len(b.Dir); len(c.Unread) < baseline.MaxUnread && unread <= baseline.MaxUnreadBytes {
				c.Unread = append(c.Unread, bytes.Clone(b.Dir))
			}
		}
		for i := range b.Entries {
			en := &b.Entries[i]
			if p, bad := problem(b.Dir, en); bad {
				t.Problems = append(t.Problems, p)
			}
			rec = baseline.Record{Dir: b.Dir, Name: en.Name, Info: en.Info, Content: en.Content, Sum: en.Sum, Target: en.Target, Xattrs: en.Xattrs}
			if err := w.Add(&rec); err != nil {
				return fmt.Errorf("write baseline: %w", err)
			}
			if o.KeepContent.keeps(&rec) && len(texts) < maxKeptFiles {
				texts = append(texts, rec.Clone())
			}
		}
		return nil
	})
	if err != nil {
		return nil, interrupted(err, "no baseline was taken")
	}
	if w.Counts().Entries == 0 && snapshot == nil {
		return nil, failure.Errorf(failure.Usage, "there is nothing to take a baseline of: no path of policy %q exists in %s", o.Policy.Name, tree)
	}
	c.Finished = seconds(time.Now())
	if err := e.announce(ctx, c); err != nil {
		return nil, interrupted(err, "no baseline was taken")
	}
	if c.Root, err = w.Commit(&c.Header, o.Policy.Encode()); err != nil {
		return nil, err
	}
	err = e.saveOwners(ctx, &c, tree, o.Policy.Paths)
	if errors.Is(err, packages.ErrDamaged) {
		// Whose files are will not be known; what they are is.
		t.Problems = append(t.Problems, Problem{Path: []byte("/var/lib"), Kind: Unreadable, Reason: err.Error()})
		err = nil
	}
	if err := errors.Join(err, e.saveFacts(&c, snapshot), e.keepTexts(ctx, c, texts)); err != nil {
		e.drop(c)
		return nil, interrupted(err, "no baseline was taken")
	}
	if st, err := os.Stat(e.file(c)); err == nil {
		c.FileBytes = st.Size()
	}
	if err := e.catalogue(ctx, &c, Act{Kind: history.Baseline}); err != nil {
		e.drop(c)
		return nil, interrupted(err, "no baseline was taken")
	}
	t.Entry, t.Elapsed = c, time.Since(started)
	return t, nil
}

func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// interrupted adds to a cancellation what it left behind.
func interrupted(err error, left string) error {
	if errors.Is(err, context.Canceled) {
		return failure.Errorf(failure.Interrupted, "interrupted: %s, and what was there before is unchanged", left)
	}
	return err
}
