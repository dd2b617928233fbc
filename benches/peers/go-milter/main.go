// The null filter on go-milter: all callbacks, one header added on request, a sender <sleep-50@...> takes 50 ms.
//
// go-milter SPEC [h], as benches/servers/null-filter.c; go-milter 0.3 answers every header line, so there is
// no n.
package main

import (
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-milter"
)

// filter is NoOpMilter, which goes on at every step, with an end of message of its own.
type filter struct {
	milter.NoOpMilter
	addsHeader bool
}

// MailFrom is called with the sender.
func (f filter) MailFrom(from string, m *milter.Modifier) (milter.Response, error) {
	local, _, _ := strings.Cut(strings.TrimPrefix(from, "<"), "@")
	if strings.HasPrefix(local, "sleep-") {
		milliseconds, err := strconv.Atoi(strings.TrimPrefix(local, "sleep-"))
		if err != nil {
			return nil, err
		}
		time.Sleep(time.Duration(milliseconds) * time.Millisecond)
	}
	return milter.RespContinue, nil
}

// Body is called at the end of the message.
func (f filter) Body(m *milter.Modifier) (milter.Response, error) {
	if f.addsHeader {
		if err := m.AddHeader("X-Null-Filter", "passed"); err != nil {
			return nil, err
		}
	}
	return milter.RespContinue, nil
}

// listen opens the socket that spec names: unix:PATH or inet:PORT@HOST.
func listen(spec string) (net.Listener, error) {
	scheme, rest, _ := strings.Cut(spec, ":")
	if scheme == "inet" {
		port, host, _ := strings.Cut(rest, "@")
		return net.Listen("tcp", net.JoinHostPort(host, port))
	}
	return net.Listen("unix", rest)
}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: go-milter SPEC [h]")
	}
	addsHeader := len(os.Args) > 2 && strings.Contains(os.Args[2], "h")
	listener, err := listen(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := milter.Server{
		NewMilter: func() milter.Milter { return filter{addsHeader: addsHeader} },
		Actions:   milter.OptAddHeader,
	}
	log.Fatal(server.Serve(listener))
}
