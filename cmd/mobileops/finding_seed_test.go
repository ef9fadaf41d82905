package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// seedFindings is the program seed-findings of the scripts: it reports the
// findings on its standard input, JSON lines, to the state directory of the
// script, as a sensor does. The file names in a script are text, so the bytes
// of a subject may be given as subject_b64.
func seedFindings() {
	source := flag.String("source", "integrity", "the sensor")
	scope := flag.String("scope", "default", "what it scanned")
	ago := flag.Duration("ago", 0, "how long ago")
	flag.Parse()
	var found []finding.Finding
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var f finding.Finding
		if err := json.Unmarshal(in.Bytes(), &f); err != nil {
			fmt.Fprintln(os.Stderr, "seed-findings:", err)
			os.Exit(1)
		}
		found = append(found, f)
	}
	var sum finding.Summary
	store := state.New(os.Getenv("MOBILEOPS_STATE_DIR"), state.Options{})
	err := store.Update(context.Background(), func(tx *state.Tx) (err error) {
		sum, err = finding.Report(tx, *source, *scope, found, time.Now().Add(-*ago))
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "seed-findings:", err)
		os.Exit(1)
	}
	fmt.Printf("%+v\n", sum)
}
