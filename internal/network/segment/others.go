package segment

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/ruleset"
)

// inTheWay are chains of other programs that drop what is forwarded unless a
// rule of theirs accepts it, as those of Docker and of many firewalls do. What
// our rules accept ends there all the same. Who may not see the rules is told
// nothing: he cannot apply anything either.
func inTheWay(ctx context.Context) (list []string) {
	objects, err := ruleset.Objects(ctx, func(_ uint8, table string) bool { return strings.HasPrefix(table, "mobileops_") })
	if err != nil {
		return nil
	}
	for _, o := range objects {
		if o.Kind == "chain" && o.Policy == "drop" && slices.Contains(strings.Fields(o.Hook), "forward") {
			list = append(list, fmt.Sprintf("the chain %s of table %s %s drops what is forwarded unless its own rules accept it, connections of workloads included: let it accept what comes in and goes out by interfaces mo-* (prove it: mobileops network policy test --connect)", o.Name, ruleset.FamilyName(o.Family), o.Table))
		}
	}
	slices.Sort(list)
	return list
}
