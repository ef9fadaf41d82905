package integrity

import (
	"context"

	"github.com/mobileops/mobileops/internal/integrity/schedule"
)

// Schedules returns the schedules, and the comparisons that say when each was
// last kept.
func (e *Engine) Schedules(ctx context.Context) ([]schedule.Schedule, []schedule.Run, error) {
	list, err := schedule.List(ctx, e.Store)
	return list, nil, err
}
