package ledger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/state"
	bolt "go.etcd.io/bbolt"
)

// The buckets, all below "scan.ledger".
//
//	asset          id of an asset → a bucket of
//	  about          "about" → assetRecord
//	  item           Key (16 bytes) → record, see record.go
//	  scan           time in µs since 1970 (8 bytes, big endian) → Scan, see trend.go
//	waiver         id → Waiver
//	vex            digest (16 bytes) → VEXDocument and its text
//	vex-statement  vulnerability, 0, digest, number (4 bytes, big endian) → statement
const (
	bucketName      = "scan.ledger"
	assetBucket     = "asset"
	itemBucket      = "item"
	scanBucket      = "scan"
	waiverBucket    = "waiver"
	vexBucket       = "vex"
	statementBucket = "vex-statement"
	aboutKey        = "about"
)

// version is that of the stored forms. A program that knows it passes over
// members that it does not know; what it could not understand needs a new one.
const version = 1

// Ledger is how the memory of scans is used. The zero value never has anything
// overdue.
type Ledger struct {
	Policy Policy
}

// shelf are the buckets of one asset in one transaction; all are nil when the
// asset is not known.
type shelf struct {
	tx          *state.Tx
	asset       string // id
	box         *bolt.Bucket
	items, runs *bolt.Bucket
	about       assetRecord
}

// assetRecord is what is stored of an asset.
type assetRecord struct {
	Version  int       `json:"v"`
	Asset    Asset     `json:"asset"`
	Products []string  `json:"products,omitempty"`
	First    time.Time `json:"first_scan"`
	Latest   time.Time `json:"last_scan"`
	Previous time.Time `json:"previous_scan,omitzero"`
	// FirstLook is when a scanner first ran here that had not run in the first scan.
	FirstLook map[protocol.Scanner]time.Time `json:"first_look,omitempty"`
	// Scanned is when each scanner last ran, Complete when it last saw everything.
	Scanned  map[protocol.Scanner]time.Time `json:"scanned"`
	Complete map[protocol.Scanner]time.Time `json:"complete"`
	// Told is when all items were last reported as findings.
	Told   time.Time `json:"told"`
	Counts Counts    `json:"counts"`
	Items  int       `json:"items"` // stored, resolved ones included
	// Used says how many items each waiver accepted when it was last looked at, by
	// scanner.
	Used map[protocol.Scanner]map[string]int `json:"used,omitempty"`
}

// top returns a bucket of the ledger; nil when it is not there and the transaction
// cannot write.
func top(tx *state.Tx, name string) (*bolt.Bucket, error) {
	if tx.Writable() {
		b, err := tx.CreateBucketIfNotExists([]byte(bucketName))
		if err != nil {
			return nil, err
		}
		return b.CreateBucketIfNotExists([]byte(name))
	}
	if b := tx.Bucket([]byte(bucketName)); b != nil {
		return b.Bucket([]byte(name)), nil
	}
	return nil, nil
}

// find opens the shelf of an asset that is known, or fails with ErrNoAsset.
func find(tx *state.Tx, asset string) (*shelf, error) {
	b, err := top(tx, assetBucket)
	if err != nil {
		return nil, err
	}
	s := &shelf{tx: tx, asset: asset}
	if b != nil && asset != "" && len(asset) <= MaxAssetID {
		s.box = b.Bucket([]byte(asset))
	}
	if s.box == nil {
		return nil, failure.Hint(fmt.Errorf("%w: %q", ErrNoAsset, clip(asset, 256)), "see them: mobileops scan assets")
	}
	return s, s.open()
}

// open reads what is stored about the asset of a box.
func (s *shelf) open() error {
	s.items, s.runs = s.box.Bucket([]byte(itemBucket)), s.box.Bucket([]byte(scanBucket))
	if s.items == nil || s.runs == nil {
		return damaged("asset "+s.asset, -1, "its buckets are missing")
	}
	if err := form.Read(named("asset "+s.asset), s.box.Get([]byte(aboutKey)), &s.about); err != nil {
		return err
	}
	if s.about.Asset.ID != s.asset {
		return damaged("asset "+s.asset, -1, "its id is %q", clip(s.about.Asset.ID, 256))
	}
	return nil
}

// obtain opens the shelf of an asset, and makes it when it is a new one.
func obtain(tx *state.Tx, a Asset) (*shelf, error) {
	if a.ID == "" || len(a.ID) > MaxAssetID || printable(a.ID) != a.ID {
		return nil, fmt.Errorf("%w: an asset has an id of 1 to %d bytes that can be printed, not %q", ErrInvalid, MaxAssetID, clip(a.ID, 256))
	}
	b, err := top(tx, assetBucket)
	if err != nil {
		return nil, err
	}
	s := &shelf{tx: tx, asset: a.ID}
	if s.box = b.Bucket([]byte(a.ID)); s.box != nil {
		return s, s.open()
	}
	count := 0
	if err := b.ForEachBucket(func([]byte) error { count++; return nil }); err != nil {
		return nil, err
	}
	if count >= MaxAssets {
		return nil, failure.Hint(failure.Errorf(failure.Failed, "%d assets are known, and no more can be", MaxAssets), "forget those that are gone: mobileops scan forget ASSET")
	}
	if s.box, err = b.CreateBucket([]byte(a.ID)); err != nil {
		return nil, err
	}
	if s.items, err = s.box.CreateBucket([]byte(itemBucket)); err != nil {
		return nil, err
	}
	if s.runs, err = s.box.CreateBucket([]byte(scanBucket)); err != nil {
		return nil, err
	}
	s.about = assetRecord{Version: version, Asset: a}
	return s, nil
}

func (s *shelf) save() error {
	v, err := json.Marshal(&s.about)
	if err != nil {
		return err
	}
	return s.box.Put([]byte(aboutKey), v)
}

// each calls fn with every record of the asset, in the order of keys. fn must not
// change the bucket.
func (s *shelf) each(fn func(*record) error) error {
	return s.items.ForEach(func(k, v []byte) error {
		r, err := readRecord(k, v)
		if err != nil {
			return err
		}
		return fn(r)
	})
}

// shelves calls fn with the shelf of every asset, or of the one that is named.
func shelves(tx *state.Tx, asset string, fn func(*shelf) error) error {
	if asset != "" {
		s, err := find(tx, asset)
		if err != nil {
			return err
		}
		return fn(s)
	}
	b, err := top(tx, assetBucket)
	if err != nil || b == nil {
		return err
	}
	return b.ForEachBucket(func(k []byte) error {
		s := &shelf{tx: tx, asset: string(k), box: b.Bucket(k)}
		if err := s.open(); err != nil {
			return err
		}
		return fn(s)
	})
}

// form is how documents are kept that have a version.
var form = state.Form{Version: version, MaxBytes: MaxRecord}

// named says in messages where what is damaged lies. An asset may have a long name.
func named(what string) string { return "scan ledger: " + clip(what, MaxText) }

func damaged(what string, offset int64, format string, args ...any) error {
	return state.Damaged(named(what), offset, format, args...)
}

// decodeJSON reads a stored document.
func decodeJSON(what string, b []byte, v any) error {
	return state.ReadJSON(named(what), MaxRecord, b, v)
}

// sinceFirstLook reports whether a class was looked for here for the first time at a
// moment, which scans for others had preceded: what was found then is no news.
func (a *assetRecord) sinceFirstLook(c Class, at time.Time) bool {
	first, ok := a.FirstLook[c.Scanner()]
	return ok && at.Equal(first)
}

func timeKey(t time.Time) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(t.UnixMicro()))
}
