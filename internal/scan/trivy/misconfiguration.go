//go:build goexperiment.jsonv2

package trivy

import (
	"github.com/aquasecurity/trivy/pkg/iac/rego"
	"github.com/aquasecurity/trivy/pkg/misconf"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// misconfigurationOptions loads the checks that are built into Trivy. It takes a
// second or so, and is done only when somebody asks for them.
func misconfigurationOptions(r *protocol.Scan) (misconf.ScannerOption, error) {
	o := misconf.ScannerOption{
		Namespaces:     rego.BuiltinNamespaces(),
		RegoErrorLimit: rego.DefaultAllowedRegoErrors,
		SkipFiles:      r.SkipFiles,
		SkipDirs:       r.SkipDirs,
	}
	s, err := misconf.InitRegoScanner(o)
	if err != nil {
		return o, failure.Errorf(failure.Failed, "the checks of configuration files cannot be loaded: %w", plain(err))
	}
	o.RegoScanner = s
	return o, nil
}
