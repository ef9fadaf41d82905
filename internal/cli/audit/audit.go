// Package audit holds the commands of mobileops audit: they prove the record
// of acts. mobileops logs audit shows it.
package audit

import (
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/spf13/cobra"
)

// New returns mobileops audit.
func New(a *app.App) *cobra.Command {
	return a.Group("audit", "Prove that the record of what was done is complete and unchanged",
		newVerify(a), newHead(a),
	)
}

func files() []string {
	return []string{
		"/var/lib/mobileops/state.db: the chain",
		"/var/lib/mobileops/keys/audit.key: the key that signs its head; audit.pub beside it is the public half",
		"/var/log/mobileops/audit-head.json: the last signed head",
	}
}
