//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"unsafe"

	"github.com/hashicorp/go-getter"

	"github.com/aquasecurity/trivy/pkg/iac/scanners/terraform/parser/resolvers"
	xhttp "github.com/aquasecurity/trivy/pkg/x/http"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// isolate takes the network away from everything in Trivy that would use it
// without being asked. Modules of Terraform it would fetch from wherever a file
// that is scanned says, with git too; parents of pom.xml it would fetch from
// repositories that the file names.
func isolate(r *protocol.Scan) {
	clear(getter.Getters)
	refuse := &http.Transport{DialContext: dial, DialTLSContext: dial}
	withoutRegistry(refuse)
	if r.Remote {
		xhttp.SetDefaultTransport(xhttp.NewTransport(xhttp.Options{Insecure: r.Insecure}))
		return
	}
	// Trivy expects that the default transport is one of this type.
	http.DefaultTransport, http.DefaultClient.Transport = refuse, refuse
	xhttp.SetDefaultTransport(offline{refuse})
}

// withoutRegistry takes the transport away from the client by which Trivy asks
// registries of Terraform modules. It is made before anybody could say how, and not
// exported; the test that traces sockets says when it is elsewhere one day.
func withoutRegistry(refuse http.RoundTripper) {
	v := reflect.ValueOf(resolvers.Registry)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return
	}
	f := v.Elem().FieldByName("client")
	if !f.IsValid() || f.Type() != reflect.TypeFor[*http.Client]() {
		return
	}
	(*(**http.Client)(unsafe.Pointer(f.UnsafeAddr()))).Transport = refuse
}

func dial(_ context.Context, _, address string) (net.Conn, error) {
	return nil, fmt.Errorf("%s is not asked: scans don't use the network", address)
}

type offline struct{ refuse http.RoundTripper }

// Build implements xhttp.Transport.
func (o offline) Build(...xhttp.TransportOption) http.RoundTripper { return o.refuse }
