package update

import (
	"context"
	"path/filepath"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
)

// openRepository returns the configured repository as this host sees it.
func openRepository(a *app.App, c *config.Config) (*repo.Client, error) {
	switch {
	case c.Update.Repository == "":
		return nil, failure.Hint(failure.New(failure.NotReady, "no repository of updates is configured"), "set update.repository and update.repository_root, or name the file of a package")
	case c.Update.RepositoryRoot == "":
		return nil, failure.Hint(failure.New(failure.NotReady, "nothing says which repository is to be trusted"), "set update.repository_root to the root.json of its publisher")
	}
	root, err := repo.ReadRoot(c.Update.RepositoryRoot)
	if err != nil {
		return nil, err
	}
	s, err := a.State()
	if err != nil {
		return nil, err
	}
	return repo.Open(repo.Options{Source: c.Update.Repository, Root: root, Dir: filepath.Join(c.StateDir, "update", "repository"), State: s})
}

// downloaded returns where a package of the repository lies once it was
// downloaded.
func downloaded(c *config.Config, t *repo.Target) string {
	return filepath.Join(c.StateDir, "update", "packages", filepath.Base(t.Path))
}

// download puts a package of the repository among those that were downloaded, and
// returns its path.
func download(ctx context.Context, a *app.App, client *repo.Client, c *config.Config, t *repo.Target) (string, error) {
	path := downloaded(c, t)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	var done atomic.Int64
	bar := a.Streams.Progress("downloading "+ui.Escape(filepath.Base(t.Path)), func() ui.Counters { return ui.Counters{Bytes: done.Load(), TotalBytes: t.Length} })
	err := client.Download(ctx, *t, path, func(n int64) { done.Add(n) })
	bar.Stop()
	if err == nil && t.Signed {
		err = client.DownloadSignature(ctx, *t, path+".minisig")
	}
	return path, err
}
