package plugin

import (
	"context"
	"net/http"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/registry"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newPush(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "push FILE oci://HOST[:PORT]/REPOSITORY:TAG",
		Short: "Put a package into a registry for containers",
		Long: `Put a package into a registry for containers, from which hosts install it by the same
reference, or by its digest, which is printed. It is proved before, by a key that is
trusted here. The password is that of plugin.credentials.`,
		Example: `
mobileops plugin push forwarder-1.2.0.plugin.tar.zst oci://registry.example.org/plugins/forwarder:1.2.0
ref=$(mobileops plugin push forwarder-1.2.0.plugin.tar.zst oci://registry.example.org/plugins/forwarder:1.2.0) && echo "mobileops plugin install $ref"   # in a build job
`,
		Args: cobra.ExactArgs(2),
		Statuses: []app.Status{
			{Code: 0, Text: "it is there; its reference by digest is printed"},
			{Code: 3, Text: "the registry cannot be reached"},
			{Code: 4, Text: "the registry wants another password"},
			{Code: 5, Text: "the package is not to be trusted; nothing was sent"},
			{Code: 7, Text: "there is no FILE, or no key is trusted here"},
		},
		Files:    []string{keyFiles, "state.db in the state directory: who published what"},
		Audited:  true,
		Complete: func(_ context.Context, args []string, _ string) []string { return pushWords(len(args)) },
		Run:      func(ctx context.Context, args []string) error { return runPush(ctx, a, args[0], args[1]) },
	})
}

// pushWords completes what stands before the name of a registry.
func pushWords(n int) []string {
	switch n {
	case 0:
		return app.Files(packageExtensions()...)
	case 1:
		return []string{"oci://"}
	}
	return nil
}

// pushDocument is the document of plugin push.
type pushDocument struct {
	Schema    string `json:"schema"`
	Package   string `json:"package"`
	Reference string `json:"reference"` // by digest
	Name      string `json:"name"`
	Version   string `json:"version"`
	Sequence  uint64 `json:"sequence"`
}

func runPush(ctx context.Context, a *app.App, path, ref string) error {
	if !strings.HasPrefix(ref, "oci://") {
		return app.UsageError("%s is not a place in a registry: oci://HOST/REPOSITORY:TAG", ref)
	}
	c, err := a.Config()
	if err != nil {
		return err
	}
	if err := registry.Check(c.Plugin.Credentials, "plugin.credentials"); err != nil {
		return err
	}
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	d, err := described(ctx, path, keys)
	if err != nil {
		return reword(err)
	}
	where, err := source.PushOCI(ctx, path, ref, d, source.Options{Proxy: http.ProxyFromEnvironment, Credentials: registry.Credentials[source.Credential](c.Plugin.Credentials, "plugin.credentials")})
	if err != nil {
		return err
	}
	a.SetResult("%s is %s", where, path)
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(pushDocument{"mobileops.plugin.push/v1", path, where, d.Name, d.Version, d.Sequence})
	}
	return say(a.Streams, "%s", ui.Escape(where))
}
