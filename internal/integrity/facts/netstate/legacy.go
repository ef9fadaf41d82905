package netstate

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/ruleset"
)

// legacyTables tells of the tables of iptables-legacy, which nftables does not
// know. Arptables are named, and not read.
func legacyTables(g *gathering) {
	list, err := ruleset.Legacy(g.Proc)
	for _, t := range list {
		g.add("iptables-legacy", "firewall", t.Program+"-legacy/"+facts.Text(t.Table), facts.Fact{
			Severity:   finding.High,
			Attributes: map[string]string{"object": "table", "rules": fmt.Sprint(t.Rules), "digest": t.Digest},
		})
	}
	g.told("iptables-legacy", err, "")
	if b, err := os.ReadFile(filepath.Join(g.Proc, "net/arp_tables_names")); err == nil && len(b) > 0 {
		g.sources = append(g.sources, facts.Source{Aspect: facts.Network, Name: "arptables-legacy", State: facts.Failed,
			Detail: "tables of arptables-legacy are in use and are not read; use nft"})
	}
}
