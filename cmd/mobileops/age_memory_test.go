package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// ageMemory is a program of the scripts: it moves what is remembered of
// schedules and reports into the past, by the span in its argument, as if
// nothing had happened since.
func ageMemory() {
	if err := age(os.Getenv("MOBILEOPS_STATE_DIR"), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func age(dir, span string) error {
	by, err := time.ParseDuration(span)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(dir) {
		return fmt.Errorf("MOBILEOPS_STATE_DIR is %q", dir)
	}
	return state.New(dir, state.Options{}).Update(context.Background(), func(tx *state.Tx) error {
		for bucket, members := range map[string][]string{"integrity.schedules": {"installed"}, "integrity.reports": {"started", "last"}} {
			b := tx.Bucket([]byte(bucket))
			if b == nil {
				continue
			}
			changed := map[string][]byte{}
			err := b.ForEach(func(k, v []byte) error {
				var doc map[string]any
				if v[0] != '{' {
					return nil
				}
				if err := json.Unmarshal(v, &doc); err != nil {
					return err
				}
				for _, m := range members {
					at, err := time.Parse(time.RFC3339, doc[m].(string))
					if err != nil {
						return err
					}
					doc[m] = at.Add(-by)
				}
				var err error
				changed[string(k)], err = json.Marshal(doc)
				return err
			})
			if err != nil {
				return err
			}
			for k, v := range changed {
				if err := b.Put([]byte(k), v); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
