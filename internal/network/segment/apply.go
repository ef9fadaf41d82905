package segment

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// Engine applies documents in the network namespace of the thread that calls
// it.
type Engine struct {
	Store    *state.Store
	Firewall Firewall // nil: links alone, which no command asks for
	By       string   // who applies, for the record

	before func(s Change) // each step; for tests
	old    bool           // plan as for a kernel before 6.17; for tests
}

// Request says how the documents in force are to change. The zero value asks
// for those that are in force already.
type Request struct {
	Put  []*Document // each takes the place of the one of its name
	Drop []string    // names of documents that end
	Only bool        // every document ends that Put does not have
}

// ErrNoDocument says that no document of a name is in force.
var ErrNoDocument = failure.New(failure.No, "no such document is in force")

// documents are those that are to be in force, in the order in which they came.
func (r *Request) documents(now []*Document) ([]*Document, error) {
	var list []*Document
	for _, d := range now {
		if !r.Only && !slices.Contains(r.Drop, d.Name) {
			list = append(list, d)
		}
	}
	for _, name := range r.Drop {
		if !slices.ContainsFunc(now, func(d *Document) bool { return d.Name == name }) {
			return nil, fmt.Errorf("%w: %q", ErrNoDocument, name)
		}
	}
	for _, d := range r.Put {
		if i := slices.IndexFunc(list, func(o *Document) bool { return o.Name == d.Name }); i >= 0 {
			list[i] = d
		} else {
			list = append(list, d)
		}
	}
	return list, nil
}

// Plan says what an apply would do. It changes nothing. An error of kind
// failure.NotReady names what the kernel lacks, one of kind failure.Busy what
// is in the way.
func (e *Engine) Plan(ctx context.Context, r Request) (*Plan, error) {
	s, docs, err := e.start(ctx, r)
	if err != nil {
		return nil, err
	}
	return e.plan(ctx, s, docs)
}

func (e *Engine) start(ctx context.Context, r Request) (*saved, []*Document, error) {
	s, err := load(ctx, e.Store)
	if err != nil {
		return nil, nil, err
	}
	if err := s.Record.here(); err != nil {
		return nil, nil, err
	}
	docs, err := r.documents(s.Documents)
	return s, docs, err
}

// Apply makes it so, and returns what it did. When a step fails, or ctx is
// cancelled, everything is taken back to what was in force before; the error
// says so, or says what is left. A workload that is not there yet is no error:
// the plan names it, and everything else is in force.
func (e *Engine) Apply(ctx context.Context, r Request) (*Plan, error) {
	lock, err := e.Store.Lock("network-segments", "network apply")
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	s, docs, err := e.start(ctx, r)
	if err != nil {
		return nil, err
	}
	plan, err := e.plan(ctx, s, docs)
	if err != nil {
		return nil, err
	}
	old := *s
	if len(plan.steps) == 0 && s.Pending == nil && sameDocuments(docs, s.Documents) && sameRecord(&plan.next, &s.Record) {
		return plan, nil
	}
	// What is about to be made is remembered before it is made.
	s.Record = s.Record.with(&plan.next)
	s.Pending = &pending{Since: time.Now().UTC(), By: e.By}
	for _, d := range docs {
		s.Pending.Documents = append(s.Pending.Documents, d.Name)
	}
	if err := s.save(ctx, e.Store); err != nil {
		return nil, err
	}
	if failed := e.run(ctx, plan); failed != nil {
		return nil, e.rollBack(context.WithoutCancel(ctx), s, &old, failed)
	}
	return plan, e.keep(context.WithoutCancel(ctx), s, plan)
}

// Reconcile brings back what is in force: after a reboot, after somebody
// changed something, after an apply that was killed, which counts as not having
// been.
func (e *Engine) Reconcile(ctx context.Context) (*Plan, error) { return e.Apply(ctx, Request{}) }

// run does the steps of a plan.
func (e *Engine) run(ctx context.Context, p *Plan) error {
	doing := ""
	for _, s := range p.steps {
		if s.Text != "" {
			doing = s.Text
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.before != nil {
			e.before(s.Change)
		}
		if err := s.do(); err != nil {
			return fmt.Errorf("%s: %w", doing, explain(err))
		}
	}
	return nil
}

// explain gives an error of the kernel its kind.
func explain(err error) error {
	var known *failure.Error
	switch {
	case errors.As(err, &known):
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return failure.Errorf(failure.NotAllowed, "only root sets up networks: %w", err)
	case errors.Is(err, unix.EOPNOTSUPP):
		return failure.Errorf(failure.NotReady, "the kernel cannot do this: %w", err)
	}
	return err
}

// keep remembers that a plan is in force.
func (e *Engine) keep(ctx context.Context, s *saved, p *Plan) error {
	h, err := readHost()
	if err != nil {
		return err
	}
	for i := range p.next.Links {
		if l := h.byName[p.next.Links[i].Name]; l != nil {
			p.next.Links[i].Index = l.index
		}
	}
	s.Documents, s.Layout, s.Record, s.Pending = p.Documents, p.Layout, p.next, nil
	s.Since, s.By = time.Now().UTC(), e.By
	return s.save(ctx, e.Store)
}

// rollBack goes back to what was in force before a plan that failed.
func (e *Engine) rollBack(ctx context.Context, s, old *saved, failed error) error {
	kind := failure.KindOf(failed)
	undo := func() (*Plan, error) {
		plan, err := e.plan(ctx, s, old.Documents)
		if err == nil {
			err = e.run(ctx, plan)
		}
		return plan, err
	}
	plan, err := undo()
	if err == nil {
		since, by := old.Since, old.By
		if err = e.keep(ctx, s, plan); err == nil {
			s.Since, s.By = since, by
			if err = s.save(ctx, e.Store); err == nil {
				return &failure.Error{Kind: kind, Err: failed, Hint: "everything is as it was before"}
			}
		}
	}
	left := "what is left could not be found out"
	if plan, perr := e.plan(ctx, s, old.Documents); perr == nil {
		var texts []string
		for _, c := range plan.Changes() {
			texts = append(texts, string(c.Sign)+" "+c.Text)
		}
		left = "to be as before, this is still to do: " + strings.Join(texts, "; ")
	}
	return failure.Errorf(failure.Worse(kind, failure.Failed), "%w; it could not be taken back: %w; %s (try again: mobileops network reconcile)", failed, err, left)
}

// Forget gives up what was made in a network namespace that cannot be reached
// any more, and every document. It changes nothing but state.db.
func (e *Engine) Forget(ctx context.Context) error {
	s, err := load(ctx, e.Store)
	if err != nil {
		return err
	}
	return (&saved{Seed: s.Seed}).save(ctx, e.Store)
}

// Status is what is in force.
type Status struct {
	Documents []*Document
	Layout    *Layout // nil: nothing has been applied
	Since     time.Time
	By        string
	Pending   time.Time // when an apply began that was killed; zero: none
	Drift     []Change  // what Reconcile would do
	Missing   []Absent  // workloads and uplinks that are not there
	Notes     []string
}

// Status compares what is in force with what is there.
func (e *Engine) Status(ctx context.Context) (*Status, error) {
	s, docs, err := e.start(ctx, Request{})
	if err != nil {
		return nil, err
	}
	st := &Status{Documents: docs, Layout: s.Layout, Since: s.Since, By: s.By}
	if s.Pending != nil {
		st.Pending = s.Pending.Since
	}
	if len(docs) == 0 && s.Record.empty() {
		return st, nil
	}
	plan, err := e.plan(ctx, s, docs)
	if err != nil {
		return nil, err
	}
	st.Drift, st.Missing, st.Notes = plan.Changes(), plan.Missing, plan.Notes
	return st, nil
}

// Documents returns the documents that are in force, in the order in which they
// came, without looking at the host.
func (e *Engine) Documents(ctx context.Context) ([]*Document, error) {
	s, err := load(ctx, e.Store)
	if err != nil {
		return nil, err
	}
	return s.Documents, nil
}

// Applied returns the layout that is in force, nil when there is none, without
// looking at the host.
func Applied(ctx context.Context, store *state.Store) (*Layout, error) {
	s, err := load(ctx, store)
	if err != nil {
		return nil, err
	}
	return s.Layout, nil
}

func sameDocuments(a, b []*Document) bool { return sameJSON(a, b) || len(a)+len(b) == 0 }

func sameRecord(a, b *record) bool { return sameJSON(a, b) }

// sameJSON compares what would be written to state.db.
func sameJSON(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
