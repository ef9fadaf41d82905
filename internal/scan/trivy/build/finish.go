//go:build goexperiment.jsonv2

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aquasecurity/trivy-db/pkg/db"
	"github.com/aquasecurity/trivy-db/pkg/types"
	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/vulnerability"
	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// finish makes of the tables that sources filled those that Trivy reads.
func (b *builder) finish() error {
	ids, err := b.ids()
	if err != nil {
		return err
	}
	for done := 0; done < len(ids); done += batch {
		if err := context.Cause(b.ctx); err != nil {
			return err
		}
		b.tell("order", int64(done), "")
		if err := b.conn.Update(func(tx *bolt.Tx) error {
			for _, id := range ids[done:min(done+batch, len(ids))] {
				if err := b.settle(tx, id); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return b.conn.Update(func(tx *bolt.Tx) error {
		for _, name := range []string{advisoryDetail, vulnerabilityDetail, vulnerabilityID} {
			if err := tx.DeleteBucket([]byte(name)); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
				return err
			}
		}
		return b.count(tx)
	})
}

func (b *builder) ids() (ids []string, err error) {
	err = b.conn.View(func(tx *bolt.Tx) error {
		bucket := tx.Bucket([]byte(vulnerabilityID))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(k, _ []byte) error {
			ids = append(ids, string(k))
			return nil
		})
	})
	return ids, err
}

// settle files one vulnerability and its advisories, unless it was rejected.
func (b *builder) settle(tx *bolt.Tx, id string) error {
	details := map[types.SourceID]types.VulnerabilityDetail{}
	if root := tx.Bucket([]byte(vulnerabilityDetail)); root != nil {
		if bucket := root.Bucket([]byte(id)); bucket != nil {
			if err := bucket.ForEach(func(k, v []byte) error {
				var d types.VulnerabilityDetail
				err := json.Unmarshal(v, &d)
				details[types.SourceID(k)] = d
				return err
			}); err != nil {
				return err
			}
		}
	}
	dbc := db.Config{}
	vulns := vulnerability.New(dbc)
	if vulns.IsRejected(details) {
		b.report.Skipped["rejected"]++
		return nil
	}
	if err := dbc.SaveAdvisoryDetails(tx, id); err != nil {
		return err
	}
	// Where no source describes it, that it is there with an unknown severity is
	// still said.
	v := vulns.Normalize(id, details)
	dates(&v, details)
	return dbc.PutVulnerability(tx, id, v)
}

// dates fills in when a vulnerability was published and changed where neither
// NVD nor GitHub says so: the first and the last that any source tells.
func dates(v *types.Vulnerability, details map[types.SourceID]types.VulnerabilityDetail) {
	var first, last *time.Time
	for _, d := range details {
		if p := d.PublishedDate; p != nil && (first == nil || p.Before(*first)) {
			first = p
		}
		if m := d.LastModifiedDate; m != nil && (last == nil || m.After(*last)) {
			last = m
		}
	}
	if v.PublishedDate == nil {
		v.PublishedDate = first
	}
	if v.LastModifiedDate == nil {
		v.LastModifiedDate = last
	}
}

// count says in the report what is in the database.
func (b *builder) count(tx *bolt.Tx) error {
	return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
		switch string(name) {
		case "vulnerability":
			return bucket.ForEach(func(_, _ []byte) error { b.report.Vulnerabilities++; return nil })
		case "data-source", "Red Hat CPE":
			return nil
		}
		ecosystem, _, _ := strings.Cut(string(name), "::")
		return bucket.ForEachBucket(func(pkg []byte) error {
			return bucket.Bucket(pkg).ForEach(func(_, _ []byte) error {
				b.report.Advisories++
				b.report.Ecosystems[ecosystem]++
				return nil
			})
		})
	})
}
