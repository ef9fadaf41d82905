package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/plugins/siem-integration-plugin/internal/deliver"
)

// status shows what the service wrote down last.
func status(_ context.Context, _ *pluginsdk.Client, words []string, flags map[string]string) error {
	data, err := os.ReadFile(statusPath())
	if errors.Is(err, fs.ErrNotExist) {
		return fail(statusNotReady, "the service has not run yet (mobileops plugin start siem-integration-plugin)")
	}
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("the status file is damaged: %w", err)
	}
	if len(words) > 0 {
		for _, name := range words {
			if !slices.ContainsFunc(r.Destinations, func(d deliver.Status) bool { return d.Name == name }) {
				return fail(statusUsage, "no destination %q", name)
			}
		}
		r.Destinations = slices.DeleteFunc(r.Destinations, func(d deliver.Status) bool { return !slices.Contains(words, d.Name) })
	}
	if wantsJSON(flags) {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(r)
	}
	if age := time.Since(r.Written); age > 10*statusEvery {
		fmt.Printf("The service does not run, or stands still: this is from %s (%s ago).\n", r.Written.Local().Format(time.DateTime), age.Round(time.Second))
	}
	fmt.Printf("Queue: %d events to be delivered, %d of %d MiB", r.Queue.Records, r.Queue.Bytes>>20, r.Queue.Limit>>20)
	if r.Full {
		fmt.Print(", FULL: events wait at the host")
	}
	if r.Queue.Corrupt > 0 {
		fmt.Printf(", %d damaged records skipped", r.Queue.Corrupt)
	}
	fmt.Println()
	fmt.Printf("%-20s %-10s %9s %11s %7s %8s  %s\n", "DESTINATION", "TYPE", "QUEUED", "DELIVERED", "RESENT", "DEAD", "STATE")
	for _, d := range r.Destinations {
		fmt.Printf("%-20s %-10s %9d %11d %7d %8d  %s\n", d.Name, d.Type, d.Queued, d.Delivered, d.Resent, d.DeadLetters, d.State)
		if d.LastError != "" {
			fmt.Printf("  last error, %s: %s\n", d.LastErrorAt.Local().Format(time.DateTime), oneLine(d.LastError))
		}
	}
	return nil
}

// test sends one event and says what the receiver said.
func test(ctx context.Context, client *pluginsdk.Client, words []string, _ map[string]string) error {
	if len(words) != 1 {
		return fail(statusUsage, "which destination? test DESTINATION")
	}
	config, err := configured(ctx, client)
	if err != nil {
		return err
	}
	i, err := config.find(words[0])
	if err != nil {
		return err
	}
	d, err := deliver.New(config.Destinations[i], config.options(client, i), nil)
	if err != nil {
		return &failure{statusNotReady, err}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	said, err := d.Probe(ctx)
	if err != nil {
		return fail(statusNo, "%s: %w", words[0], err)
	}
	fmt.Printf("%s: %s\n", words[0], oneLine(said))
	return nil
}

// deadLetters lists what receivers refused, has it sent again, or drops it.
func deadLetters(ctx context.Context, client *pluginsdk.Client, words []string, flags map[string]string) error {
	verbs := []string{"list", "retry", "drop"}
	if len(words) == 0 || !slices.Contains(verbs, words[0]) || len(words) > 2 {
		return fail(statusUsage, "dead-letters list|retry|drop [DESTINATION]")
	}
	config, err := configured(ctx, client)
	if err != nil {
		return err
	}
	names := config.names()
	if len(words) == 2 {
		if _, err := config.find(words[1]); err != nil {
			return err
		}
		names = words[1:]
	} else if words[0] == "drop" {
		return fail(statusUsage, "of which destination? dead-letters drop DESTINATION")
	}
	for _, name := range names {
		switch words[0] {
		case "list":
			err = listLetters(name, wantsJSON(flags))
		case "retry":
			var n int
			if n, err = deliver.Again(dataDir(), name); err == nil {
				fmt.Printf("%s: %d dead letters will be sent again\n", name, n)
			}
		case "drop":
			var n int
			if n, err = deliver.Drop(dataDir(), name); err == nil {
				fmt.Printf("%s: %d dead letters dropped\n", name, n)
			}
		}
		if errors.Is(err, deliver.ErrAgain) {
			return fail(8, "%s: %w", name, err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func listLetters(name string, asJSON bool) error {
	list, err := deliver.Letters(dataDir(), name)
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for _, l := range list {
		if asJSON {
			if err := out.Encode(struct {
				Destination string `json:"destination"`
				deliver.Letter
			}{name, l}); err != nil {
				return err
			}
			continue
		}
		title := ""
		if l.Event != nil && l.Event.Finding != nil {
			title = l.Event.Finding.Title
		}
		fmt.Printf("%s  %s  %s  %s  %s\n", name, l.Time.Local().Format(time.DateTime), strconv.Quote(l.ID), oneLine(l.Reason), oneLine(title))
	}
	return nil
}

// wantsJSON says that JSON was asked for: by --json, or by --output of mobileops.
func wantsJSON(flags map[string]string) bool {
	output := os.Getenv(pluginsdk.EnvOutput)
	return flags["json"] == "true" || output == "json" || output == "jsonl"
}
