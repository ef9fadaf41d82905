package manifest

import "testing"

// Whoever agrees to a permission is told what it really gives.
func TestPlacesThatGiveMoreThanTheyAreCalledSaySo(t *testing.T) {
	const (
		secrets = ", where the host keeps secrets"
		takes   = ", which the host runs or obeys: it could take over the host"
		itself  = ", which is this host itself: what listens there may trust whoever is on it"
		clouds  = ", where clouds hand out the credentials of the host"
		control = ", through which the whole host is controlled"
		users   = ", where it could let itself in as those users"
	)
	for _, c := range []struct {
		p    Permissions
		want string
	}{
		{Permissions{Read: []string{"/"}}, "may read everything on the host" + secrets},
		{Permissions{Read: []string{"/etc"}}, "may read /etc" + secrets},
		{Permissions{Read: []string{"/root/.ssh"}}, "may read /root/.ssh" + secrets},
		{Permissions{Read: []string{"/etc/ssl/certs"}}, "may read /etc/ssl/certs"},
		{Permissions{Read: []string{"/etc/sshx"}}, "may read /etc/sshx"},
		{Permissions{Write: []string{"/"}}, "may change everything on the host" + takes},
		{Permissions{Write: []string{"/etc"}}, "may change /etc" + takes},
		{Permissions{Write: []string{"/etc/cron.d"}}, "may change /etc/cron.d" + takes},
		{Permissions{Write: []string{"/var"}}, "may change /var" + takes},
		{Permissions{Write: []string{"/home/a"}}, "may change /home/a" + users},
		{Permissions{Write: []string{"/srv/out"}}, "may change /srv/out"},
		{Permissions{Unix: []string{"/run/docker.sock"}}, "may use the socket /run/docker.sock" + control},
		{Permissions{Unix: []string{"/var/run/dbus/system_bus_socket"}}, "may use the socket /var/run/dbus/system_bus_socket" + control},
		{Permissions{Unix: []string{"/run/x.sock"}}, "may use the socket /run/x.sock"},
		{Permissions{Network: []string{"169.254.169.254:80"}}, "may connect to 169.254.169.254:80" + clouds},
		{Permissions{Network: []string{"[fe80::a9fe:a9fe]:80"}}, "may connect to [fe80::a9fe:a9fe]:80" + clouds},
		{Permissions{Network: []string{"[fd00:ec2::254]:80"}}, "may connect to [fd00:ec2::254]:80" + clouds},
		{Permissions{Network: []string{"100.100.100.200:80"}}, "may connect to 100.100.100.200:80" + clouds},
		{Permissions{Network: []string{"127.0.0.2:80"}}, "may connect to 127.0.0.2:80" + itself},
		{Permissions{Network: []string{"0.0.0.0:80"}}, "may connect to 0.0.0.0:80" + itself},
		{Permissions{Network: []string{"localhost:80"}}, "may connect to localhost:80" + itself},
		{Permissions{Network: []string{"logs.example.org:6514"}}, "may connect to logs.example.org:6514"},
	} {
		if got := c.p.List()[0].Meaning; got != c.want {
			t.Errorf("%+v\nmeans %q\nwant  %q", c.p, got, c.want)
		}
	}
}

func TestDefaultOfTheConfigurationSaysWhatItGives(t *testing.T) {
	m, err := Parse([]byte(`schema: mobileops.plugin/v1
name: probe
version: 1.0.0
summary: x
licence: MIT
service: {}
config: {url: {type: string, default: "http://169.254.169.254/latest"}}
permissions: {network: ["config:url"]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.List() {
		if l.What == "config:url = http://169.254.169.254/latest" {
			if want := "url in its configuration is http://169.254.169.254/latest unless it is set, where clouds hand out the credentials of the host"; l.Meaning != want {
				t.Errorf("means %q, want %q", l.Meaning, want)
			}
			return
		}
	}
	t.Error("the default has no line")
}
