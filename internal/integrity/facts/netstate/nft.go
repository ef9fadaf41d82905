package netstate

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/ruleset"
)

// nftables tells of the ruleset of nft(8): a fact for each table, chain, set,
// flowtable and stateful object, with a digest of all that an administrator
// wrote.
func nftables(g *gathering) {
	list, err := ruleset.Objects(context.Background(), nil)
	managed := managers()
	for i := range list {
		o := &list[i]
		f := facts.Fact{Severity: finding.High, Attributes: objectAttributes(o)}
		f.Attributes["managed"] = managed.of(o)
		if f.Attributes["managed"] != facts.None {
			f.Severity = finding.Low
		}
		g.add("nftables", "firewall", objectKey(o), f)
	}
	g.told("nftables", err, "")
}

// objectKey names an object: "inet/filter/input", "inet/filter/@admins".
func objectKey(o *ruleset.Object) string {
	table, name := ruleset.FamilyName(o.Family)+"/"+facts.Text(o.Table), facts.Text(o.Name)
	switch o.Kind {
	case "table":
		return table
	case "chain":
		return table + "/" + name
	case "set":
		return table + "/@" + name
	case "flowtable":
		return table + "/flowtable/" + name
	}
	return fmt.Sprintf("%s/object/%d/%s", table, o.Type, name)
}

func objectAttributes(o *ruleset.Object) map[string]string {
	attrs := map[string]string{"object": o.Kind, "digest": o.Digest}
	switch o.Kind {
	case "chain":
		attrs["policy"], attrs["hook"], attrs["rules"] = facts.None, facts.None, fmt.Sprint(o.Rules)
		if o.Hook != "" {
			attrs["policy"], attrs["hook"] = o.Policy, facts.Text(o.Hook)
		}
	case "set":
		attrs["elements"] = fmt.Sprint(o.Elements)
		if o.Dynamic {
			attrs["elements"] = "dynamic"
		}
	}
	return attrs
}
