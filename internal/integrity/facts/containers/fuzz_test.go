package containers

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzEngine(f *testing.F) {
	f.Add([]byte(`{"Id":"88a4","Name":"/web","Image":"sha256:b5","Path":"/hi","Args":[],"HostConfig":{"Privileged":true,"CapAdd":["CAP_SYS_ADMIN"],"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]},"SecurityOpt":["seccomp={}"]},"Mounts":[{"Type":"bind","Source":"/etc","Destination":"/host","RW":false}]}`))
	f.Add([]byte(`{"Id":"sha256:b5","RepoTags":["localhost/tiny:1","<none>:<none>"],"RepoDigests":["localhost/tiny@sha256:ff"]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c engineContainer
		if json.Unmarshal(b, &c) == nil {
			one, _ := c.container("docker").fact()
			two, _ := c.container("docker").fact()
			if one.Attributes["ports"] != two.Attributes["ports"] || one.Attributes["risks"] != two.Attributes["risks"] {
				t.Error("told twice it is another")
			}
		}
		var i engineImage
		if json.Unmarshal(b, &i) == nil {
			i.facts("docker")
		}
	})
}

func FuzzContainerd(f *testing.F) {
	f.Add([]byte("\x0a\x03web\x12\x08\x0a\x01k\x12\x03val\x1a\x03img\x2a\x06\x0a\x01u\x12\x02{}"))
	f.Add([]byte("\x0a\x01n\x1a\x05\x12\x03sha"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := parseContainer(b, "containerd", "ns"); err == nil {
			c.fact()
		}
		parseImage(b)
		entry(b)
		frames(bytes.NewReader(b), func(m []byte) error { return nil })
		list, err := fields(b)
		if err != nil {
			return
		}
		size := 0
		for _, x := range list {
			size += len(x.value)
		}
		if size > len(b) {
			t.Error("more came out than went in")
		}
	})
}
