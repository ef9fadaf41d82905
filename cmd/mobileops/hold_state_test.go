package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

// holdState is the program hold-state of the scripts: it holds the lease of
// the script's state directory until it is killed, ten minutes at most, and makes
// the file "held" as soon as it has it.
func holdState() {
	store := state.New(os.Getenv("MOBILEOPS_STATE_DIR"), state.Options{Doing: "a long migration"})
	err := store.Update(context.Background(), func(*state.Tx) error {
		if err := os.WriteFile("held", nil, 0o600); err != nil {
			return err
		}
		time.Sleep(10 * time.Minute)
		return nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "hold-state:", err)
		os.Exit(1)
	}
}
