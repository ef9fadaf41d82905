package plugin

import (
	"context"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/spf13/cobra"
)

func newTrust(a *app.App) *cobra.Command {
	return a.Group("trust", "Say which keys vouch for plugins and for indexes of them",
		newTrustAdd(a), newTrustList(a), newTrustRemove(a))
}

// openKeys returns the keys that vouch for plugins on this host.
func openKeys(a *app.App) (*trust.Keys, error) {
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	keys, err := trust.OpenKeys(c.Plugin.Keys)
	return keys, reword(err)
}

// trustedKeys is the document of plugin trust add, list and remove.
type trustedKeys struct {
	Schema    string       `json:"schema"`
	Directory string       `json:"directory"`
	Keys      []trustedKey `json:"keys"`
	Remaining *int         `json:"remaining,omitempty"` // keys that are still trusted, after one was removed
	Stopped   []string     `json:"stopped,omitempty"`   // plugins that can't be started any more
}

// trustedKey is a key that is trusted, in JSON.
type trustedKey struct {
	ID      string   `json:"id"`
	Key     string   `json:"key"` // in minisign's base64
	File    string   `json:"file"`
	FileB64 []byte   `json:"file_b64,omitempty"` // present when the path is not valid UTF-8
	Names   []string `json:"names"`              // empty: may vouch for every plugin and index
}

func newTrustedKey(k trust.Key) trustedKey {
	return trustedKey{ID: k.ID(), Key: k.String(), File: k.Path, FileB64: lossless(k.Path), Names: append([]string{}, k.Scope.Names...)}
}

// trustedIDs completes the id of a trusted key.
func trustedIDs(a *app.App) completer {
	return func(_ context.Context, args []string, _ string) (ids []string) {
		if len(args) > 0 {
			return nil
		}
		keys, err := openKeys(a)
		if err != nil {
			return nil
		}
		for _, k := range keys.List() {
			ids = append(ids, k.ID()+"\t"+scopeText(k.Scope))
		}
		return ids
	}
}

// scopeText says what a key may vouch for.
func scopeText(s trust.Scope) string {
	if len(s.Names) == 0 {
		return "plugins of any name"
	}
	return strings.Join(s.Names, ", ")
}
