package network

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/network/block"
	"github.com/mobileops/mobileops/internal/network/isolation"
	"github.com/mobileops/mobileops/internal/network/monitor"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/ui"
)

// inForce tells what of mobileops is in force beside isolation, and what of that
// is not as it is to be.
func inForce(ctx context.Context, a *app.App) (list []monitor.Force, problems []string, err error) {
	blocks, err := newBlocks(a)
	if err != nil {
		return nil, nil, err
	}
	segments, err := newSegments(a)
	if err != nil {
		return nil, nil, err
	}
	return inForceBy(ctx, blocks, segments)
}

// inForceBy is inForce for who asks again and again: making the engines looks
// for the session of the administrator.
func inForceBy(ctx context.Context, blocks *block.Engine, segments *segment.Engine) (list []monitor.Force, problems []string, err error) {
	b, err := blocks.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	if len(b.Blocks)+len(b.Feeds) > 0 {
		f := monitor.Force{Name: "blocks", Detail: ui.Plural(int64(len(b.Blocks)), "block", "blocks") + ", " + ui.Plural(int64(len(b.Feeds)), "feed", "feeds")}
		for _, d := range b.Dropped {
			f.Dropped += d.Packets
		}
		if b.InForce {
			list = append(list, f)
		}
	}
	if b.Missing {
		problems = append(problems, "blocks are not in force: put them in force again: mobileops network reconcile")
	}
	s, err := segments.Status(ctx)
	if err != nil {
		return nil, nil, err
	}
	if s.Layout != nil && len(s.Layout.Zones) > 0 {
		list = append(list, monitor.Force{
			Name: "segments", Since: s.Since,
			Detail: ui.Plural(int64(len(s.Layout.Zones)), "zone", "zones") + ", " + ui.Plural(int64(len(s.Layout.Ports)), "workload", "workloads"),
		})
	}
	if len(s.Drift) > 0 {
		problems = append(problems, fmt.Sprintf("segments are not as they were applied (%s): put them right: mobileops network reconcile", ui.Plural(int64(len(s.Drift)), "difference", "differences")))
	}
	return list, problems, nil
}

// isolationForce tells of isolation as monitor shows it.
func isolationForce() ([]monitor.Force, error) {
	now, err := isolation.ReadAll()
	if err != nil || !now.InForce {
		return nil, err
	}
	f := monitor.Force{Name: "isolation", Detail: "this host is isolated"}
	if now.Pending {
		f.Detail += " until it is confirmed"
		f.Until = time.Now().Add(now.Left).Round(time.Second)
	}
	if gaps := append(now.Gaps, now.Bypass...); len(gaps) > 0 {
		f.Detail += ", with gaps: " + strings.Join(gaps, ", ")
	}
	for _, c := range now.Counters {
		f.Dropped += c.Packets
	}
	return []monitor.Force{f}, nil
}

// monitorForce tells of everything that is in force.
func monitorForce(a *app.App) func(context.Context) ([]monitor.Force, error) {
	blocks := sync.OnceValues(func() (*block.Engine, error) { return newBlocks(a) })
	segments := sync.OnceValues(func() (*segment.Engine, error) { return newSegments(a) })
	return func(ctx context.Context) ([]monitor.Force, error) {
		list, err := isolationForce()
		if err != nil {
			return list, err
		}
		b, err := blocks()
		if err != nil {
			return list, err
		}
		s, err := segments()
		if err != nil {
			return list, err
		}
		more, problems, err := inForceBy(ctx, b, s)
		list = append(list, more...)
		if err == nil && len(problems) > 0 {
			err = fmt.Errorf("%s", strings.Join(problems, "; "))
		}
		return list, err
	}
}
