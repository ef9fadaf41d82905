// Package scan is the noun that finds vulnerable packages, leaked secrets,
// licences and misconfiguration, and remembers them: one file per verb. What is
// the same for every kind of target is in target.go, how a report is printed in
// table.go.
package scan

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// Lines about files in help texts.
const (
	stateFile    = "/var/lib/mobileops/state.db: what was found, since when, waivers, VEX statements, findings"
	databaseFile = "/var/lib/mobileops/scan/vulndb: the vulnerability database (mobileops vulndb)"
	memoFile     = "/var/lib/mobileops/scan/memo: what files were found to hold, by their content"
	workerFile   = "/usr/local/libexec/mobileops/mobileops-scan: the program with Trivy in it"
	policyFile   = "/etc/mobileops/license-policy.yaml: which licences are allowed, where the configuration names it"
)

// New returns the noun.
func New(a *app.App) *cobra.Command {
	return a.Group("scan", "Find vulnerable packages, secrets, licences and misconfiguration, and remember them",
		newHost(a), newRootfs(a), newFS(a), newRepo(a), newImage(a), newSBOM(a),
		newList(a), newShow(a), newAssets(a), newForget(a), newDiff(a), newTrend(a), newSLA(a),
		newWaive(a), newApprove(a), newUnwaive(a), newWaivers(a), newVEX(a))
}
