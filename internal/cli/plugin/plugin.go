// Package plugin holds the commands of mobileops plugin: extensions that are
// signed, that do what they declared and nothing else, and that need no
// internet.
package plugin

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops plugin. No plugin may have one of the reserved names,
// which are those of the nouns.
func New(a *app.App, reserved []string) *cobra.Command {
	return a.Group("plugin", "Extend mobileops with programs that are signed and confined",
		newSearch(a), newInfo(a, reserved), newInstall(a, reserved), newUpgrade(a, reserved), newRollback(a), newUninstall(a),
		newList(a), newEnable(a), newDisable(a), newVerify(a, reserved), newPermissions(a), newConfig(a), newTrust(a),
		newRun(a), newStart(a), newStop(a), newRestart(a), newStatus(a), newMonitor(a), newLogs(a), newSupervise(a),
		newInit(a, reserved), newPack(a, reserved), newIndex(a), newPush(a))
}
