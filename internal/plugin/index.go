package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
)

// IndexSchema names the format of index.json.
const IndexSchema = "mobileops.plugin.commands/v1"

// Index is what the command line has to know of plugins at every press of Tab
// and before every command: it is read without a lease of the state. It follows
// from the records; what it names is proved before it is started.
type Index struct {
	Schema  string  `json:"schema"`
	Plugins []Entry `json:"plugins"`
}

// Entry is a plugin that is installed and enabled.
type Entry struct {
	Name        string             `json:"name"`
	Version     string             `json:"version"`
	Manifest    string             `json:"manifest"` // digest, as in the record
	Summary     string             `json:"summary"`
	Description string             `json:"description,omitempty"`
	Commands    []manifest.Command `json:"commands,omitempty"`
	Hooks       []manifest.Hook    `json:"hooks,omitempty"` // before and after commands
}

// maxIndex bounds index.json in bytes.
const maxIndex = 8 << 20

func indexPath(dir string) string { return filepath.Join(dir, "index.json") }

// ReadIndex reads the index of a directory of plugins. Where none was ever
// installed it is empty. One that others can write to is not read.
func ReadIndex(dir string) (*Index, error) {
	f, err := os.OpenFile(indexPath(dir), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return &Index{}, nil // what others installed is no business of ours
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, failure.Errorf(failure.Untrustworthy, "%s can be changed by others than root or you (remove it, then: mobileops plugin list)", f.Name())
	}
	if info.Size() > maxIndex {
		return nil, failure.Errorf(failure.Untrustworthy, "%s has %d bytes; %d are allowed (remove it, then: mobileops plugin list)", f.Name(), info.Size(), maxIndex)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxIndex))
	if err != nil {
		return nil, err
	}
	var x Index
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "%s: %v (it is made again by: mobileops plugin list)", f.Name(), err)
	}
	return &x, nil
}

// Find returns the entry of a name, nil when there is none.
func (x *Index) Find(name string) *Entry {
	for i := range x.Plugins {
		if x.Plugins[i].Name == name {
			return &x.Plugins[i]
		}
	}
	return nil
}

// writeIndex makes the index of what the records say. The lock is held.
func (e *Engine) writeIndex(ctx context.Context) error {
	list, err := e.List(ctx)
	if err != nil {
		return err
	}
	x := Index{Schema: IndexSchema, Plugins: []Entry{}}
	for _, r := range list {
		if !r.Enabled {
			continue
		}
		m, err := e.manifestOf(r)
		if err != nil {
			continue // it cannot be started either; verify and list say why
		}
		entry := Entry{Name: m.Name, Version: m.Version, Manifest: r.Manifest, Summary: m.Summary, Description: m.Description, Commands: m.Commands}
		for _, h := range m.Hooks {
			if h.On == manifest.OnBefore || h.On == manifest.OnAfter {
				entry.Hooks = append(entry.Hooks, h)
			}
		}
		x.Plugins = append(x.Plugins, entry)
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // no browser reads it, and it would be up to six times as long
	if err := enc.Encode(x); err != nil {
		return err
	}
	if data.Len() > maxIndex {
		return failure.Errorf(failure.Failed, "what plugins say of their commands has %d bytes, and %d are read at every start (uninstall or disable one of them)", data.Len(), maxIndex)
	}
	if err := durable.MkdirAll(e.opts.Dir, 0o711); err != nil {
		return err
	}
	if err := durable.WriteFile(indexPath(e.opts.Dir), data.Bytes(), 0o644); err != nil {
		return failure.Hint(fmt.Errorf("the change itself was made, but not the list from which commands and hooks are found: %w", err), "when there is room, make the list again: mobileops plugin list")
	}
	return nil
}

// Reconcile makes the index again when it does not say what the records do, as
// after a crash between the two, and says whether it had to.
func (e *Engine) Reconcile(ctx context.Context) (changed bool, err error) {
	before, _ := readOwned(indexPath(e.opts.Dir), maxIndex)
	list, err := e.List(ctx)
	if err != nil || len(list) == 0 && len(before) == 0 {
		return false, err
	}
	lock, err := e.lock("plugin list")
	if err != nil {
		return false, err
	}
	defer lock.Release()
	if err := e.writeIndex(ctx); err != nil {
		return false, err
	}
	after, err := readOwned(indexPath(e.opts.Dir), maxIndex)
	return string(before) != string(after), err
}
