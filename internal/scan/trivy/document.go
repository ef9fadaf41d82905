//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"strings"

	"github.com/aquasecurity/trivy/pkg/report/cyclonedx"
	"github.com/aquasecurity/trivy/pkg/report/spdx"
	"github.com/aquasecurity/trivy/pkg/types"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// document writes an SBOM of everything that was found, as Trivy does.
func document(ctx context.Context, kind protocol.Document, r types.Report) (string, error) {
	var b strings.Builder
	var err error
	switch kind {
	case protocol.CycloneDX:
		err = cyclonedx.NewWriter(&b, version()).Write(ctx, r)
	case protocol.SPDXJSON:
		err = spdx.NewWriter(&b, version(), types.FormatSPDXJSON).Write(ctx, r)
	case protocol.SPDX:
		err = spdx.NewWriter(&b, version(), types.FormatSPDX).Write(ctx, r)
	}
	if err != nil {
		return "", failure.Errorf(failure.Failed, "write the document %s: %w", kind, plain(err))
	}
	return b.String(), nil
}
