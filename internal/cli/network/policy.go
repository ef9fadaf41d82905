package network

import (
	"context"
	"errors"
	"slices"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/policy"
	"github.com/spf13/cobra"
)

func newPolicy(a *app.App) *cobra.Command {
	return a.Group("policy", "Say what the zones and flows in force allow, and prove it", newPolicyTest(a), newPolicyShow(a))
}

// errNothingApplied says that there is no policy to speak of.
var errNothingApplied = failure.New(failure.NotReady, "nothing has been applied, so nothing is allowed or denied")

// policyInForce is what has been applied.
func policyInForce(ctx context.Context, a *app.App) (*policy.Policy, error) {
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	l, err := segment.Applied(ctx, store)
	if err != nil {
		return nil, err
	}
	if l == nil || len(l.Zones) == 0 {
		return nil, failure.Hint(errNothingApplied, "begin: mobileops network apply FILE; or ask about a file: --file FILE")
	}
	return policy.Compile(l)
}

// policyOf is what would be in force if a file were applied.
func policyOf(ctx context.Context, a *app.App, name string) (*policy.Policy, error) {
	doc, err := readDocument(a.Streams.In, name)
	if err != nil {
		return nil, err
	}
	docs, before, err := appliedDocuments(ctx, a)
	if err != nil {
		return nil, err
	}
	docs = append(slices.DeleteFunc(slices.Clone(docs), func(d *segment.Document) bool { return d.Name == doc.Name }), doc)
	l, err := segment.Arrange(docs, segment.Given{Before: before})
	if err != nil {
		return nil, err
	}
	return policy.Compile(l)
}

// appliedDocuments are those in force. Who may not read them asks about his file
// alone.
func appliedDocuments(ctx context.Context, a *app.App) ([]*segment.Document, *segment.Layout, error) {
	e, err := newSegments(a)
	if err != nil {
		return nil, nil, err
	}
	docs, err := e.Documents(ctx)
	if failure.KindOf(err) == failure.NotAllowed {
		return nil, nil, nil
	}
	before, errBefore := segment.Applied(ctx, e.Store)
	return docs, before, errors.Join(err, errBefore)
}
