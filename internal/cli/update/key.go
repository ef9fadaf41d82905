package update

import (
	"context"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/spf13/cobra"
)

// keysDir is what help says of the trusted keys.
const keysDir = "/etc/mobileops/update-keys/: the public keys that are trusted, and what each may vouch for"

func newKey(a *app.App) *cobra.Command {
	return a.Group("key", "Make keys that sign packages, and say which are trusted",
		newKeyGenerate(a), newKeyAdd(a), newKeyList(a), newKeyRemove(a))
}

// openKeys returns the keys that are trusted on this host.
func openKeys(a *app.App) (*trust.Keys, error) {
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	return trust.OpenKeys(c.Update.Keys)
}

// trustedKeys is the document of update key add, list and remove.
type trustedKeys struct {
	Schema    string       `json:"schema"`
	Directory string       `json:"directory"`
	Keys      []trustedKey `json:"keys"`
	Remaining *int         `json:"remaining,omitempty"` // keys that are still trusted, after one was removed
}

// trustedKey is a key that is trusted, in JSON.
type trustedKey struct {
	ID       string   `json:"id"`
	Key      string   `json:"key"` // in minisign's base64
	File     string   `json:"file"`
	FileB64  []byte   `json:"file_b64,omitempty"` // present when the path is not valid UTF-8
	Names    []string `json:"names"`              // empty: may vouch for packages of any name
	Channels []string `json:"channels"`           // empty: of any channel
}

func newTrustedKey(k trust.Key) trustedKey {
	return trustedKey{
		ID: k.ID(), Key: k.String(), File: k.Path, FileB64: lossless(k.Path),
		Names: append([]string{}, k.Scope.Names...), Channels: append([]string{}, k.Scope.Channels...),
	}
}

// lossless returns the bytes of a path that JSON cannot hold as text.
func lossless(path string) []byte {
	if utf8.ValidString(path) {
		return nil
	}
	return []byte(path)
}

// trustedIDs completes the id of a trusted key.
func trustedIDs(a *app.App) func(context.Context, []string, string) []string {
	return func(_ context.Context, args []string, _ string) []string {
		if len(args) > 0 {
			return nil
		}
		keys, err := openKeys(a)
		if err != nil {
			return nil
		}
		var ids []string
		for _, k := range keys.List() {
			ids = append(ids, k.ID()+"\t"+scopeText(k.Scope))
		}
		return ids
	}
}
