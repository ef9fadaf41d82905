// Package update holds the commands of mobileops update: packages that are
// verified, applied by one rename, and undone by another.
package update

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops update.
func New(a *app.App) *cobra.Command {
	return a.Group("update", "Update an installation, wholly or not at all",
		newApply(a), newActivate(a), NewRollback(a), newReconcile(a), newSelf(a),
		newSLA(a),
		newList(a), newListBackups(a), newShow(a), newVerify(a), newDiff(a), newHistory(a),
		newBackup(a), newPin(a), newUnpin(a), newPrune(a),
		newKey(a), newPack(a), newSign(a),
		newCheck(a), newDownload(a), newRepo(a))
}
