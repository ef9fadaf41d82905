package integrity

import (
	"cmp"
	"context"
	"slices"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/state"
)

// By says who changes what is trusted, and why.
type By struct {
	audit.Actor
	Reason string // at most history.MaxReason bytes
	Ticket string // at most history.MaxTicket bytes
}

// Keys say who signs the history.
type Keys struct {
	// PublicKey is the path of the public key that must be in force. Empty: the
	// one in the state directory.
	PublicKey string
}

// Act is what the history keeps of an act beside By and the baseline.
type Act struct {
	Kind history.Kind
	// Of an acceptance: the id of the report, the number of changes that were
	// accepted, and the digest of the list of them.
	Report         string
	Accepted       int
	AcceptedDigest baseline.Hash
}

// History returns the history of the state directory. It opens nothing.
func (e *Engine) History() *history.Log {
	return history.New(e.Store, history.Options{PublicKey: e.Keys.PublicKey, Tool: e.Tool})
}

// record appends a record about a baseline to the history, in the transaction
// that changes the catalogue.
func (e *Engine) record(tx *state.Tx, pen *history.Pen, c Entry, act Act) error {
	_, err := pen.Append(tx, history.Record{
		Kind: act.Kind, Actor: e.By.Actor, Reason: e.By.Reason, Ticket: e.By.Ticket,
		Name: c.Name, ID: c.ID, Root: c.Root, Policy: c.PolicyName, PolicyDigest: c.PolicyDigest, OwnersDigest: c.Owners, FactsDigest: c.Facts,
		Report: act.Report, Accepted: act.Accepted, AcceptedDigest: act.AcceptedDigest,
	})
	return err
}

// adopted is the reason in the records of baselines that are older than the
// history.
const adopted = "adopted: it was there before there was a history"

// adopt begins the history with the baselines that are there, which an older
// version took. It does nothing once there is a record.
func (e *Engine) adopt(tx *state.Tx, pen *history.Pen) error {
	empty, err := history.Empty(tx)
	if err != nil || !empty {
		return err
	}
	list, err := entries(tx)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Compare(a.Sequence, b.Sequence) })
	former := *e
	former.By.Reason, former.By.Ticket = adopted, ""
	for _, c := range list {
		act := Act{Kind: history.Baseline}
		if c.Imported {
			act.Kind = history.Import
		}
		if err := former.record(tx, pen, c, act); err != nil {
			return err
		}
	}
	return nil
}

// about is a record of who acts and why.
func (e *Engine) about() history.Record {
	return history.Record{Actor: e.By.Actor, Reason: e.By.Reason, Ticket: e.By.Ticket}
}

// UseKey puts a key in force whose private half is elsewhere. Baselines that
// are older than the history are adopted first.
func (e *Engine) UseKey(ctx context.Context, pub minisign.PublicKey) error {
	if err := history.CheckReason(e.By.Reason, e.By.Ticket); err != nil {
		return err
	}
	if _, _, err := e.known(ctx, false); err != nil {
		return err
	}
	_, err := e.History().Use(ctx, e.about(), pub)
	return err
}

// RotateKey makes a new key on this host and puts it in force. lost says that
// the former private key is gone.
func (e *Engine) RotateKey(ctx context.Context, lost bool) error {
	if err := history.CheckReason(e.By.Reason, e.By.Ticket); err != nil {
		return err
	}
	if _, _, err := e.known(ctx, false); err != nil {
		return err
	}
	about := e.about()
	about.Lost = lost
	_, err := e.History().Rotate(ctx, about)
	return err
}
