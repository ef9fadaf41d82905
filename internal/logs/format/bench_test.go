package format

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

var benchLines = map[string][]string{
	"syslog": {
		"Nov 22 05:55:12 web1 sshd[30830]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=198.51.100.30 ",
		"Nov 22 05:55:13 web1 sshd[29415]: Failed password for invalid user postgres from 203.0.113.157 port 43369 ssh2",
		"Nov 22 05:55:14 web1 sshd[25522]: Received disconnect from 192.0.2.123: 11: Bye Bye [preauth]",
		"Nov 22 05:55:15 web1 systemd[1]: Started session-1234.scope - Session 1234 of User backup.",
		"Nov 22 05:55:16 web1 kernel: [12345.678901] IPv6: ADDRCONF(NETDEV_CHANGE): veth1a2b3c4: link becomes ready",
	},
	"json": {
		`{"timestamp":"2026-11-22T05:55:12.123Z","level":"info","logger":"http","msg":"request done","method":"GET","path":"/api/v1/items?id=77","status":200,"took_ms":12.7,"client":"203.0.113.157","request_id":"7f540a5e-a987-c65a-4b22-85c2bd07930c"}`,
		`{"timestamp":"2026-11-22T05:55:13.001Z","level":"error","logger":"db","msg":"query failed: \"timeout\"","host":{"name":"web1","os":"linux"},"user":"bob","pid":812}`,
	},
	"syslog-iso":   {"2026-11-22T05:55:12.123456+00:00 web1 sshd[812]: Failed password for root from 192.0.2.7 port 50222 ssh2"},
	"apache-error": {"[Sun Nov 22 05:55:12 2026] [notice] jk2_init() Found child 1893 in scoreboard slot 8"},
	"access":       {`192.0.2.7 - - [22/Nov/2026:05:55:12 +0100] "GET /index.html?q=1 HTTP/1.1" 200 2326 "http://example.com/start" "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101 Firefox/115.0"`},
	"hdfs":         {"081109 203615 149 INFO dfs.DataNode$DataXceiver: Receiving block blk_-1608999687919862906 src: /10.250.19.102:54106 dest: /10.250.19.102:50010"},
	"log4j":        {"2015-10-18 18:01:47,978 INFO [main] org.apache.hadoop.mapreduce.v2.app.MRAppMaster: Created MRAppMaster for application appattempt_1445144423722_0020_000001"},
	"openstack":    {`nova-api.log.1.2017-05-16_13:53:08 2017-05-16 00:00:00.008 25746 INFO nova.osapi_compute.wsgi.server [req-38101a0b-2096-447d-96ea-a692162415ae 113d3a99c3da401fbd62cc2caa5b96d2 54fadb412c4e40cdbaed9335e4c35a9e - - -] 10.11.10.1 "GET /v2/x/servers/detail HTTP/1.1" status: 200 len: 1893 time: 0.2477829`},
	"logfmt":       {`time=2026-11-22T05:55:12.5Z level=warn msg="slow query" user=bob addr=192.0.2.1:99 n=3 component=db query="select * from x"`},
	"audit":        {`type=USER_LOGIN msg=audit(1764481363.245:102): pid=12 uid=0 auid=1000 ses=3 msg='op=login acct="bob" exe="/usr/sbin/sshd" hostname=192.0.2.7 addr=192.0.2.7 terminal=ssh res=success'`},
	"docker":       {`{"log":"hello world, this is a line of a container\n","stream":"stdout","time":"2026-11-22T05:55:12.123456789Z"}`},
}

// cpu returns the processor time that the process has used: on a machine that
// does other work too, only that tells how fast something is.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs f, which reads size bytes, and reports the rate by processor time.
func measure(b *testing.B, size int, f func()) {
	b.ReportAllocs()
	f()
	start, n := cpu(), 0
	for b.Loop() {
		f()
		n++
	}
	b.ReportMetric(float64(n)*float64(size)/1e6/(cpu()-start).Seconds(), "MB/cpu-s")
}

func BenchmarkFill(b *testing.B) {
	s := builtinSet(b)
	for name, lines := range benchLines {
		f, _ := s.Lookup(name)
		b.Run(name, func(b *testing.B) {
			size := 0
			for _, l := range lines {
				size += len(l)
			}
			var raws [][]byte
			for _, l := range lines {
				raws = append(raws, []byte(l))
			}
			var e event.Event
			measure(b, size, func() {
				for _, raw := range raws {
					e.Raw = raw
					f.Fill(&e)
				}
			})
		})
	}
}

func BenchmarkNext(b *testing.B) {
	s := builtinSet(b)
	for name, lines := range benchLines {
		f, _ := s.Lookup(name)
		b.Run(name, func(b *testing.B) {
			data := []byte(strings.Repeat(strings.Join(lines, "\n")+"\n", 1000))
			var recs []event.Record
			measure(b, len(data), func() { recs, _ = f.NewReader(ReaderOptions{}).Next(recs[:0], data, true) })
		})
	}
}

func BenchmarkLayout(b *testing.B) {
	for name, text := range map[string]string{"bsd": "Nov 22 05:55:12", "rfc3339": "2026-11-22T05:55:12.123456+00:00", "log4j": "2015-10-18 18:01:47,978", "clf": "22/Nov/2026:05:55:12 +0100"} {
		l, err := newLayout(name)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			data := []byte(text)
			measure(b, len(data), func() {
				if _, _, ok := l.Parse(data); !ok {
					b.Fatal("not read")
				}
			})
		})
	}
}

func BenchmarkAddrs(b *testing.B) {
	text := []byte(strings.Join(benchLines["syslog"], "\n"))
	var addrs []netip.Addr
	measure(b, len(text), func() { addrs = AppendAddrs(addrs[:0], text) })
}
