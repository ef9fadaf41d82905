package integrity

import (
	"context"
	"errors"
	"os"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/state"
)

// setPending notes files that are about to appear or to go.
func setPending(tx *state.Tx, list ...Entry) error {
	b, err := tx.CreateBucketIfNotExists(pendingBucket)
	for i := 0; i < len(list) && err == nil; i++ {
		err = b.Put([]byte(list[i].ID), []byte(list[i].Name))
	}
	return err
}

// announce notes that the file of c is about to appear, so that it is found
// again should this process be killed before it is in the catalogue.
func (e *Engine) announce(ctx context.Context, c Entry) error {
	return e.Store.Update(ctx, func(tx *state.Tx) error { return setPending(tx, c) })
}

// sweep removes what killed or failed runs left of the baselines of one name.
// The lock of the name must be held.
func (e *Engine) sweep(ctx context.Context, name string) error {
	if err := durable.Clean(e.path(name + baseline.Ext)); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	var left []Entry
	err := e.Store.View(ctx, func(tx *state.Tx) error {
		left = nil
		b, catalog := tx.Bucket(pendingBucket), tx.Bucket(catalogBucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(id, of []byte) error {
			if string(of) == name && validID(string(id)) && (catalog == nil || catalog.Get(id) == nil) {
				left = append(left, Entry{Header: baseline.Header{ID: string(id), Name: name}})
			}
			return nil
		})
	})
	if err != nil || len(left) == 0 {
		return err
	}
	chain, err := e.History().Chain(ctx)
	if err != nil {
		return err
	}
	for _, c := range left {
		for _, path := range append(e.filesOf(c), e.acceptedFile(c)) {
			if err := durable.Clean(path); err != nil {
				return failure.Wrap(failure.Failed, err)
			}
		}
	}
	e.removeFiles(left)
	recorded := map[string]bool{}
	if err := chain.Records(func(r *history.Entry) error { recorded[r.Record.ID] = true; return nil }); err == nil {
		for _, c := range left {
			if !recorded[c.ID] { // it never was: nobody will ask what was accepted into it
				os.Remove(e.acceptedFile(c))
			}
		}
	}
	return e.Store.Update(ctx, func(tx *state.Tx) error {
		b := tx.Bucket(pendingBucket)
		var errs []error
		for _, c := range left {
			errs = append(errs, b.Delete([]byte(c.ID)))
		}
		return errors.Join(errs...)
	})
}

// drop removes the file of a baseline that could not be catalogued. An error of
// state.db can come after its transaction is durable, so only what is known not
// to be in the catalogue goes; the next run sees to the rest.
func (e *Engine) drop(c Entry) {
	if _, err := e.Find(context.Background(), c.Name+"@"+c.ID); errors.Is(err, ErrNoBaseline) {
		e.removeFiles([]Entry{c})
		os.Remove(e.acceptedFile(c))
	}
}
