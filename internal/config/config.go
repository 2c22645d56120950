package config

import (
	"net"
	"net/netip"
	"strconv"
	"time"

	"carpool/internal/policy"
)

// Config is the whole bootstrap configuration of one process. Users, keys,
// quotas of single users, upstreams and routes are not here: they live in the
// store and can be declared in the file named by Resources.
//
// Tags: key is the name in the file, default its value when absent (as it would
// be written in the environment), enum the accepted words, min and max the
// limits of numbers and durations, check the name of a further check (see
// check.go), kind:"path" marks paths of files, shown replaces the default in the
// documentation where it depends on something else, and doc is its meaning.
type Config struct {
	Node          Node          `key:"node" doc:"Who this node is."`
	Server        Server        `key:"server" doc:"The address that Claude Code talks to, and its limits."`
	CentralServer CentralServer `key:"centralServer" doc:"The control plane that a node of a fleet belongs to; not used by a standalone server."`
	ClaudeCode    ClaudeCode    `key:"claudeCode" doc:"Policy for Claude Code clients."`
	Storage       Storage       `key:"storage" doc:"The node's own database: ledger, counters, cached policy."`
	Ledger        Ledger        `key:"ledger" doc:"The node's record of what is spent; see reliability.md."`
	Control       Control       `key:"control" doc:"The control plane: users, keys, upstreams, routes."`
	Admin         Admin         `key:"admin" doc:"Access to the admin API over the network; the Unix socket in the data folder always works."`
	Metrics       Metrics       `key:"metrics" doc:"Prometheus metrics."`
	Log           Log           `key:"log" doc:"The server's own log."`
	Prices        Prices        `key:"prices" doc:"What the operator pays, over the published prices; see prices.md."`
	TimeZone      string        `key:"timeZone" default:"UTC" check:"zone" doc:"Time zone (IANA name) of the calendar days and months that quotas are counted in."`
	Organization  string        `key:"organization" default:"default" check:"label" doc:"Name of the organisation that users and teams belong to."`
	Resources     string        `key:"resources" kind:"path" doc:"File with teams, upstreams, aliases, routes, users, keys and budgets, applied at every start and reload (the form of 'carpool apply')."`
	DataDir       string        `key:"dataDir" default:"./carpool-data" kind:"path" shown:"./carpool-data, or the folder of storage.path where only that is given" doc:"Folder of everything the server keeps; also --data and CARPOOL_DATA."`

	file     string
	says     bool
	warnings []string
	given    func(path string) bool
}

// Node is the identity of a data plane.
type Node struct {
	Name         string `key:"name" check:"label" shown:"the host's name" doc:"Name of this node, in health answers, metrics and the ledger."`
	Location     string `key:"location" doc:"Where the node stands, in the operator's own words, such as us-west-1."`
	Endpoint     string `key:"endpoint" check:"httpURL" doc:"Base URL under which developers reach this node."`
	Capabilities any    `key:"capabilities" doc:"What the node says of itself: a list of words or a free map, handed on as it is."`
}

// Server is the listener of the data plane.
type Server struct {
	Host              string        `key:"host" default:"127.0.0.1" check:"host" doc:"Address to listen on; 0.0.0.0 for every IPv4 interface, [::] for all."`
	Port              int           `key:"port" default:"8080" min:"0" max:"65535" doc:"Port to listen on; 0 takes any free one."`
	RequestTimeout    time.Duration `key:"requestTimeout" default:"600s" min:"1ms" doc:"How long an upstream may take until its response headers, in each attempt; a running stream is not limited by it."`
	ReadHeaderTimeout time.Duration `key:"readHeaderTimeout" default:"10s" min:"1ms" doc:"How long a client may take to send the header of a request."`
	ReadBodyTimeout   time.Duration `key:"readBodyTimeout" default:"60s" min:"1ms" doc:"How long a client may take to send the body of a request; one that keeps sending at least 16 KiB a second may take longer."`
	WriteTimeout      time.Duration `key:"writeTimeout" default:"60s" min:"1ms" doc:"How long a client may take nothing of an answer that is ready to be sent; a stream that is merely silent is not limited by it."`
	IdleTimeout       time.Duration `key:"idleTimeout" default:"120s" min:"1ms" doc:"How long an idle connection is kept open."`
	DrainDelay        time.Duration `key:"drainDelay" default:"0s" min:"0" doc:"How long connections are still accepted after the server was told to stop and /ready has begun to fail, so that load balancers notice."`
	DrainTimeout      time.Duration `key:"drainTimeout" default:"30s" min:"0" doc:"How long running requests may go on after the server was told to stop."`
	MaxBodyBytes      int64         `key:"maxBodyBytes" default:"33554432" min:"1024" max:"1073741824" doc:"Largest request body in bytes; the Anthropic API takes 32 MiB."`
	MaxBodyMemory     int64         `key:"maxBodyMemory" default:"0" min:"0" shown:"a quarter of the memory" doc:"Bytes that the bodies of all requests that wait for an answer may hold in memory together; requests beyond it are refused with status 529."`
	MaxConnections    int           `key:"maxConnections" default:"10000" min:"1" max:"1000000" doc:"Connections of developers that are open at once, lowered to what the limit of open files allows; further ones wait."`
	TrustedProxies    []string      `key:"trustedProxies" check:"network" doc:"Addresses and networks of proxies in front, such as 10.0.0.0/8: only what they say in X-Forwarded-For of the client's address counts."`
	TLS               TLS           `key:"tls" doc:"Serve HTTPS with these files; both or neither."`
}

// Address is host:port as net.Listen takes it.
func (s Server) Address() string {
	host := s.Host
	if len(host) > 1 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, strconv.Itoa(s.Port))
}

// TrustedNetworks is TrustedProxies as networks.
func (s Server) TrustedNetworks() []netip.Prefix {
	var networks []netip.Prefix
	for _, text := range s.TrustedProxies {
		if n, err := policy.ParseNetwork(text); err == nil { // Load has seen to that
			networks = append(networks, n)
		}
	}
	return networks
}

// TLS names the server's certificate and private key, both PEM.
type TLS struct {
	CertFile string `key:"certFile" kind:"path" doc:"Certificate chain, PEM."`
	KeyFile  string `key:"keyFile" kind:"path" doc:"Private key, PEM."`
}

// Enabled says whether the server speaks HTTPS.
func (t TLS) Enabled() bool { return t.CertFile != "" }

// CentralServer is the control plane of a fleet, seen from a node.
type CentralServer struct {
	URL     string        `key:"url" check:"httpURL" doc:"Base URL of the control plane."`
	WSURL   string        `key:"wsUrl" check:"wsURL" shown:"derived from url" doc:"WebSocket URL of the control plane."`
	Timeout time.Duration `key:"timeout" default:"30s" min:"1ms" doc:"How long one call to the control plane may take."`
}

// ClaudeCode is the policy for Claude Code clients.
type ClaudeCode struct {
	Enabled            bool               `key:"enabled" default:"true" doc:"Whether Claude Code requests are served at all."`
	SupportedVersions  []string           `key:"supportedVersions" check:"version" doc:"Exact list of client versions; empty means any. minVersion is usually the better choice, as a version appears almost daily."`
	MinVersion         string             `key:"minVersion" check:"version" doc:"Oldest client version."`
	RequireClient      string             `key:"requireClient" default:"enforce" enum:"enforce,warn,off" doc:"What happens to a request that is not from Claude Code in an accepted version: enforce refuses it, warn notes it, off lets it pass."`
	DefaultQuota       Quota              `key:"defaultQuota" doc:"Tokens of each user who has no quota of their own."`
	QuotaLimits        Quota              `key:"quotaLimits" synonym:"claudeCode.defaultQuota" doc:"Another name of defaultQuota."`
	DefaultLimits      Limits             `key:"defaultLimits" doc:"Limits of each key that has none of its own."`
	OrganizationLimits OrganizationLimits `key:"organizationLimits" doc:"Limits of all keys together."`
	QuotaFormula       QuotaFormula       `key:"quotaFormula" doc:"What one token of each class counts in quotas."`
	QuotaMessage       string             `key:"quotaMessage" check:"line" doc:"Text added to every answer that refuses a request for its quota, such as whom to ask for more."`
	Features           map[string]bool    `key:"features" doc:"Features by name: a list of those that are on, or a map of name to true or false."`
	SystemPrompt       string             `key:"systemPrompt" default:"ensure" enum:"ensure,off" doc:"ensure adds the Claude Code system block to a Claude Code request that brings no system at all; off never touches a request."`
	DefaultHeaders     map[string]string  `key:"defaultHeaders" default:"{anthropic-version: 2023-06-01, x-stainless-lang: js, x-stainless-package-version: 0.55.1, anthropic-dangerous-direct-browser-access: \"true\", x-app: cli}" check:"headers" doc:"Headers added to a Claude Code request towards an upstream where the client did not send them; a given map replaces the default one."`
}

// Quota is an amount of tokens per calendar day and month in the configured
// time zone. Nil means no limit, 0 means nothing at all.
type Quota struct {
	Daily   *int64 `key:"daily" min:"0" shown:"no limit" doc:"Tokens per calendar day."`
	Monthly *int64 `key:"monthly" min:"0" shown:"no limit" doc:"Tokens per calendar month."`
}

// Limits are the rates of a key; 0 means none.
type Limits struct {
	RequestsPerMinute int   `key:"requestsPerMinute" default:"0" min:"0" max:"1000000000" doc:"Requests a minute of each key that has no such limit of its own; 0 is unlimited."`
	TokensPerMinute   int64 `key:"tokensPerMinute" default:"0" min:"0" max:"1000000000" doc:"Tokens a minute, weighed by quotaFormula, of each key that has no such limit of its own; 0 is unlimited."`
	InFlight          int   `key:"inFlight" default:"64" min:"0" max:"1000000000" doc:"Requests at the same time of each key that has no such limit of its own; 0 is unlimited. A CLI with sub-agents needs at least 16."`
}

// OrganizationLimits are the rates of everybody together; 0 means none.
type OrganizationLimits struct {
	RequestsPerMinute int   `key:"requestsPerMinute" default:"0" min:"0" max:"1000000000" doc:"Requests a minute of all keys together; 0 is unlimited."`
	TokensPerMinute   int64 `key:"tokensPerMinute" default:"0" min:"0" max:"1000000000" doc:"Tokens a minute, weighed by quotaFormula, of all keys together; 0 is unlimited."`
	InFlight          int   `key:"inFlight" default:"0" min:"0" max:"1000000000" doc:"Requests at the same time of all keys together; 0 is unlimited."`
}

// QuotaFormula says what one token of each class counts.
type QuotaFormula struct {
	Input      Weight `key:"input" default:"1" doc:"Weight of an input token that was not cached."`
	Output     Weight `key:"output" default:"1" doc:"Weight of an output token."`
	CacheRead  Weight `key:"cacheRead" default:"0" doc:"Weight of an input token read from the cache."`
	CacheWrite Weight `key:"cacheWrite" default:"0" doc:"Weight of an input token written to the cache."`
}

// Storage is the database of the data plane.
type Storage struct {
	Type           string        `key:"type" default:"sqlite" enum:"sqlite" doc:"Kind of database."`
	Path           string        `key:"path" kind:"path" shown:"node.db in dataDir" doc:"The database file."`
	Retention      time.Duration `key:"retention" default:"2160h" min:"0" doc:"How long the node's ledger keeps entries that the control plane has, at least 24h; 0 keeps them for ever. For the control plane's there is control.store.retention; what /v1/usage tells developers is what the ledger has."`
	BackupInterval time.Duration `key:"backupInterval" default:"0" min:"0" doc:"How often a backup is made while the server runs; 0 makes none."`
	VerifyInterval time.Duration `key:"verifyInterval" default:"24h" min:"0" doc:"How often the server verifies its books in the background, as carpool db verify does; 0 is never."`
	OnDamage       string        `key:"onDamage" default:"refuse" enum:"refuse,warn" doc:"What happens when the look at the databases at the start finds damage: refuse ends the server, warn notes it and serves nevertheless."`
}

// Ledger is how the ledger keeps what it has.
type Ledger struct {
	SyncInterval time.Duration `key:"syncInterval" default:"100ms" min:"0" doc:"How long what the ledger wrote may take until it is on stable storage, which is what a loss of power may take away; 0 is before a request is sent upstream. Being killed takes nothing away in any case."`
}

// Control is the control plane's part of the configuration.
type Control struct {
	Store Store `key:"store" doc:"The store of record."`
}

// Store is the database of the control plane.
type Store struct {
	Type string `key:"type" default:"sqlite" enum:"sqlite" doc:"Kind of database."`
	Path string `key:"path" kind:"path" shown:"control.db in dataDir" doc:"The database file."`

	Retention time.Duration `key:"retention" default:"0" min:"0" doc:"How long single requests are kept that reports can tell of; older ones are rolled up to sums by the hour, by whole days in timeZone. At least 24h; 0 keeps them for ever."`
}

// Admin is access to the admin API over the network.
type Admin struct {
	Listen    string `key:"listen" check:"hostport" shown:"the port of server" doc:"Separate address (host:port) for the admin API and the console."`
	Token     Secret `key:"token" doc:"Token that the admin API accepts; prefer tokenFile or tokenEnv."`
	TokenFile string `key:"tokenFile" kind:"path" doc:"File that holds the token."`
	TokenEnv  string `key:"tokenEnv" check:"envName" doc:"Name of the environment variable that holds the token."`
}

// Metrics says where Prometheus metrics are served.
type Metrics struct {
	Listen string `key:"listen" default:"127.0.0.1:9464" check:"metricsListen" doc:"Address (host:port) of /metrics; main serves it on the port of server, off serves it nowhere."`
}

// Off says whether metrics are not served at all.
func (m Metrics) Off() bool { return m.Listen == "off" }

// OnMain says whether metrics are served on the port of the server.
func (m Metrics) OnMain() bool { return m.Listen == "main" }

// Log says what the server logs, how and where.
type Log struct {
	Level     string `key:"level" default:"info" enum:"debug,info,warn,error" doc:"Least severity that is logged."`
	Format    string `key:"format" default:"auto" enum:"auto,text,json" doc:"auto is text on a terminal and json otherwise."`
	File      string `key:"file" kind:"path" shown:"standard error" doc:"Log file; it is rotated by size."`
	MaxSizeMB int    `key:"maxSizeMB" default:"100" min:"1" max:"102400" doc:"Size in megabytes at which the log file is rotated."`
	MaxFiles  int    `key:"maxFiles" default:"5" min:"0" max:"10000" doc:"How many rotated log files are kept; 0 keeps all."`
}

// File is the path of the file that was loaded, empty if there was none.
func (c *Config) File() string { return c.file }

// Empty says that a file was loaded and has no key.
func (c *Config) Empty() bool { return c.file != "" && !c.says }

// Given says whether a key, such as metrics.listen, was set by anything but its default.
func (c *Config) Given(path string) bool { return c.given != nil && c.given(path) }
