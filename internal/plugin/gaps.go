package plugin

import (
	"os"

	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
)

// Protocol stands, among layers, for what the plugin has to ask mobileops for,
// which then does it or does not.
const Protocol sandbox.Layer = "protocol"

// Gaps returns what a plugin's manifest says and this host cannot enforce, the
// worst first.
func (e *Engine) Gaps(m *manifest.Manifest) []sandbox.Gap {
	policy := e.policyOutline(m)
	return sandbox.Detect().Gaps(&policy)
}

// EnforcedBy returns by what a permission of a kind (manifest.Line.Kind) is
// enforced on this host, in the order in which the layers are met. None means
// that nothing does.
func (e *Engine) EnforcedBy(m *manifest.Manifest, kind string) (layers []sandbox.Layer) {
	s := sandbox.Detect()
	add := func(have bool, l sandbox.Layer) {
		if have {
			layers = append(layers, l)
		}
	}
	switch kind {
	case "network", "unix": // it cannot make sockets; mobileops connects them
		add(s.Seccomp || s.Root && kind == "network", Protocol)
		add(s.Seccomp, sandbox.Seccomp)
		add(s.Root && kind == "network", sandbox.Network)
	case "read", "write", "exec":
		add(s.Landlock > 0, sandbox.Landlock)
		add(s.Root && m.Permissions.RunAs != manifest.RunAsRoot, sandbox.Accounts)
	case "memory":
		add(s.Memory, sandbox.Cgroup)
		add(true, sandbox.Rlimits)
	case "processes":
		add(s.Tasks, sandbox.Cgroup)
		add(true, sandbox.Rlimits)
	case "cpu", "files", "file_size":
		add(true, sandbox.Rlimits)
	case "run_as":
		add(os.Geteuid() == 0, sandbox.Accounts)
		add(true, sandbox.NoNewPrivs)
	default: // findings, audit, service, hooks
		add(true, Protocol)
	}
	return layers
}
