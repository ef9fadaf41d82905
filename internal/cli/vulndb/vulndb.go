// Package vulndb is the noun that keeps the vulnerability databases: one file per
// verb. What they have in common is in store.go and print.go.
package vulndb

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// Lines about files in help texts.
const (
	storeFiles = "/var/lib/mobileops/scan/vulndb: the databases, each generation in a directory of its own"
	stateFile  = "/var/lib/mobileops/state.db: the catalogue of the databases, with digests"
	keyFiles   = "vulndb.keys: the public keys that must vouch for databases, where that is configured"
)

// New returns the noun.
func New(a *app.App) *cobra.Command {
	return a.Group("vulndb", "Keep the vulnerability database of scans: import, pull or build it, offline",
		newImport(a), newPull(a), newBuild(a), newStatus(a), newList(a), newRollback(a), newVerify(a))
}
