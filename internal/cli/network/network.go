// Package network holds the commands of mobileops network.
package network

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops network.
func New(a *app.App) *cobra.Command {
	return a.Group("network", "Isolate, connect and watch networks",
		newIsolate(a),
		newIsolateThreat(a),
		newBlock(a),
		newConfirm(a),
		newRestore(a),
		newStatus(a),
		newReconcile(a),
		newApply(a),
		newSegmentsShow(a),
		newPolicy(a),
		newSetupContainer(a),
		newSetupVM(a),
		newSetupMobile(a),
		newBridge(a),
		newReset(a),
		newServe(a),
		newLeases(a),
		newMonitor(a),
		newGuard(a),
	)
}
