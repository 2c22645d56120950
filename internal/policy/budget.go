package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"carpool/internal/quota"
)

// BudgetSpec describes a budget: an amount for a time, of the organisation, a team, a user or a key.
type BudgetSpec struct {
	Name      string `json:"name" yaml:"name" doc:"Unique name" example:"alice-day"`
	Scope     string `json:"scope" yaml:"scope" doc:"Whose it is: organization, team/NAME, user/NAME or key/NAME" example:"user/alice"`
	Amount    string `json:"amount" yaml:"amount" doc:"How much: a number of USD, or of tokens of all classes, also as in 2M tokens" example:"5 USD"`
	Window    string `json:"window" yaml:"window" doc:"For what time: hour, day, week, month, lifetime, or a number of days as in 14 days" example:"day"`
	Mode      string `json:"mode,omitempty" yaml:"mode,omitempty" doc:"What a request reserves: strict the most that it can cost, fair what it will probably cost" enum:"strict,fair" default:"fair"`
	TimeZone  string `json:"timeZone,omitempty" yaml:"timeZone,omitempty" doc:"IANA name of the zone of the calendar; default the configured one" example:"Europe/Berlin"`
	Rolling   bool   `json:"rolling,omitempty" yaml:"rolling,omitempty" doc:"The window is the time of that length that ends now, instead of one of the calendar"`
	WarnAt    []int  `json:"warnAt,omitempty" yaml:"warnAt,omitempty" doc:"Percentages of the amount at which the client and the log are warned; default 75 and 95"`
	Soft      bool   `json:"soft,omitempty" yaml:"soft,omitempty" doc:"Only warns, and refuses nothing"`
	Overdraft string `json:"overdraft,omitempty" yaml:"overdraft,omitempty" doc:"How much more than the amount is admitted" example:"1 USD"`
	PerMember bool   `json:"perMember,omitempty" yaml:"perMember,omitempty" doc:"Of a team: each of its users has the amount, instead of all together"`
	Message   string `json:"message,omitempty" yaml:"message,omitempty" doc:"Text at the end of refusals: whom to ask for more" maxLength:"500"`
}

// The modes of a budget.
const (
	ModeStrict = "strict"
	ModeFair   = "fair"
)

// The kinds of a Scope.
const (
	ScopeOrganization = "organization"
	ScopeTeam         = "team"
	ScopeUser         = "user"
	ScopeKey          = "key"
)

// Scope is whose a budget is.
type Scope struct{ Kind, Name string } // Name is empty for the organisation

// ParseScope reads a scope as people write it.
func ParseScope(text string) (Scope, error) {
	if text == ScopeOrganization {
		return Scope{Kind: text}, nil
	}
	kind, name, _ := strings.Cut(text, "/")
	switch kind {
	case ScopeTeam, ScopeUser, ScopeKey:
		if name == "" {
			return Scope{}, fmt.Errorf("scope %q: the name is missing; it is %s/NAME", text, kind)
		}
		if err := checkName(kind, name); err != nil {
			return Scope{}, fmt.Errorf("scope %q: %w", text, err)
		}
		return Scope{kind, name}, nil
	}
	return Scope{}, fmt.Errorf("unknown scope %q; it is organization, team/NAME, user/NAME or key/NAME", text)
}

// String is what ParseScope reads.
func (s Scope) String() string {
	if s.Name == "" {
		return s.Kind
	}
	return s.Kind + "/" + s.Name
}

// Unit is what a budget is counted in.
type Unit string

// The units. An amount of Dollars is in micro-dollars.
const (
	Dollars Unit = "USD"
	Tokens  Unit = "tokens"
)

const (
	microPerDollar = 1_000_000
	maxDollars     = 1_000_000_000
	maxTokens      = quota.MaxTokens
)

// ParseCount reads a number of tokens as people write it: 2000000, 2,000,000, 500k, 1.5M, 1G.
func ParseCount(text string) (n int64, ok bool) {
	digits, zeros := strings.NewReplacer(",", "", "_", "").Replace(text), 0
	if digits != "" {
		switch digits[len(digits)-1] {
		case 'k', 'K':
			zeros = 3
		case 'm', 'M':
			zeros = 6
		case 'g', 'G', 'b', 'B':
			zeros = 9
		}
	}
	if zeros > 0 {
		digits = digits[:len(digits)-1]
	}
	whole, fraction, dotted := strings.Cut(digits, ".")
	if !isDigits(whole) || dotted && (!isDigits(fraction) || len(fraction) > zeros) {
		return 0, false
	}
	n, err := strconv.ParseInt(whole+fraction+strings.Repeat("0", zeros-len(fraction)), 10, 64)
	if err != nil {
		n = math.MaxInt64
	}
	return n, true
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// ParseAmount reads an amount as people write it: 5 USD, 0.25 USD, 2000000 tokens, 2M tokens.
func ParseAmount(text string) (amount int64, unit Unit, err error) {
	wrong := fmt.Errorf("%q is no amount; it is like \"5 USD\", \"0.25 USD\", \"2000000 tokens\" or \"2M tokens\"", text)
	number, name, _ := strings.Cut(text, " ")
	switch Unit(name) {
	case Tokens:
		n, ok := ParseCount(number)
		switch {
		case !ok && strings.Contains(number, "."):
			return 0, "", fmt.Errorf("%q is no amount: tokens are a whole number", text)
		case !ok:
			return 0, "", wrong
		case n > maxTokens:
			return 0, "", fmt.Errorf("%q is more than the %d tokens that a budget can have", text, int64(maxTokens))
		}
		return n, Tokens, nil
	case Dollars:
		whole, fraction, dotted := strings.Cut(number, ".")
		if !isDigits(whole) || dotted && !isDigits(fraction) {
			return 0, "", wrong
		}
		n, err := strconv.ParseInt(whole, 10, 64)
		switch {
		case len(fraction) > 6:
			return 0, "", fmt.Errorf("%q is no amount: a dollar has at most 6 decimal places", text)
		case err != nil || n > maxDollars:
			return 0, "", fmt.Errorf("%q is more than the %d USD that a budget can have", text, maxDollars)
		}
		micro, err := strconv.ParseInt((fraction + "000000")[:6], 10, 64)
		return n*microPerDollar + micro, Dollars, err
	}
	return 0, "", wrong
}

// FormatAmount is what ParseAmount reads. Dollars have two decimal places, or more where it takes more.
func FormatAmount(amount int64, unit Unit) string {
	if unit == Tokens {
		return strconv.FormatInt(amount, 10) + " tokens"
	}
	sign := ""
	if amount < 0 {
		sign, amount = "-", -amount
	}
	fraction := fmt.Sprintf("%06d", amount%microPerDollar)
	for len(fraction) > 2 && fraction[len(fraction)-1] == '0' {
		fraction = fraction[:len(fraction)-1]
	}
	return sign + strconv.FormatInt(amount/microPerDollar, 10) + "." + fraction + " USD"
}

// Validate reports the first thing wrong with the budget by itself.
func (b BudgetSpec) Validate() error {
	if err := checkName("budget", b.Name); err != nil {
		return err
	}
	_, err := b.compile("UTC")
	return err
}

// Budget is a compiled BudgetSpec.
type Budget struct {
	Name      string
	Scope     Scope
	Unit      Unit
	Amount    int64 // in Unit
	Overdraft int64 // how much more is admitted
	Span      quota.Span
	Strict    bool
	Soft      bool
	PerMember bool
	WarnAt    []int // percentages, ascending
	Message   string

	// Series names what is counted: a budget whose unit or window is changed begins with nothing used.
	Series string
}

// Limit is the amount with the overdraft: what is admitted at most.
func (b *Budget) Limit() int64 { return b.Amount + b.Overdraft }

// Pool reports whether several users spend of it.
func (b *Budget) Pool() bool {
	return b.Scope.Kind == ScopeOrganization || b.Scope.Kind == ScopeTeam && !b.PerMember
}

// Threshold returns the highest percentage of WarnAt that used has reached, 0 for none.
func (b *Budget) Threshold(used int64) (percent int) {
	for _, p := range b.WarnAt {
		if float64(used) >= float64(b.Amount)*float64(p)/100 {
			percent = p
		}
	}
	return percent
}

// Account is a budget and whose part of it: with PerMember each user has one, otherwise there is one.
type Account struct {
	*Budget
	Subject string // as a Scope is written
}

func (b BudgetSpec) compile(defaultZone string) (*Budget, error) {
	fail := func(err error) (*Budget, error) { return nil, fmt.Errorf("budget %q: %w", b.Name, err) }
	for _, field := range []struct{ name, value string }{{"scope", b.Scope}, {"amount", b.Amount}, {"window", b.Window}} {
		if field.value == "" {
			return fail(fmt.Errorf("%s is required", field.name))
		}
	}
	c := &Budget{Name: b.Name, Strict: b.Mode == ModeStrict, Soft: b.Soft, PerMember: b.PerMember, WarnAt: []int{75, 95}, Message: b.Message}
	var err error
	if c.Scope, err = ParseScope(b.Scope); err != nil {
		return fail(err)
	}
	if c.Amount, c.Unit, err = ParseAmount(b.Amount); err != nil {
		return fail(fmt.Errorf("amount: %w", err))
	}
	if c.Span, err = quota.ParseSpan(b.Window); err != nil {
		return fail(fmt.Errorf("window: %w", err))
	}
	c.Span.Rolling = b.Rolling
	if b.Mode != "" && b.Mode != ModeStrict && b.Mode != ModeFair {
		return fail(fmt.Errorf("unknown mode %q; known: %s, %s", b.Mode, ModeStrict, ModeFair))
	}
	zone := b.TimeZone
	if zone == "" {
		zone = defaultZone
	}
	if c.Span.Zone, err = time.LoadLocation(zone); err != nil || zone == "Local" {
		return fail(fmt.Errorf("time zone %q is not known", zone))
	}
	if b.Overdraft != "" {
		var unit Unit
		if c.Overdraft, unit, err = ParseAmount(b.Overdraft); err != nil {
			return fail(fmt.Errorf("overdraft: %w", err))
		} else if unit != c.Unit && c.Overdraft > 0 { // nothing is nothing in any unit
			return fail(fmt.Errorf("overdraft: it is in %s, and the amount in %s", unit, c.Unit))
		}
	}
	if err := c.complete(b); err != nil {
		return fail(err)
	}
	return c, nil
}

// complete checks what depends on each other.
func (b *Budget) complete(spec BudgetSpec) error {
	switch {
	case b.Span.Rolling && b.Span.Length == quota.Lifetime:
		return errors.New("a lifetime cannot be rolling")
	case b.Span.Rolling && spec.TimeZone != "":
		return errors.New("a rolling window has no timeZone")
	case b.PerMember && b.Scope.Kind != ScopeTeam:
		return errors.New("perMember is for the budget of a team")
	case b.Soft && b.Overdraft > 0:
		return errors.New("a soft budget refuses nothing and needs no overdraft")
	case len(spec.Message) > 500:
		return errors.New("message has more than 500 bytes")
	}
	if len(spec.WarnAt) > 0 {
		b.WarnAt = slices.Sorted(slices.Values(spec.WarnAt))
	}
	if len(b.WarnAt) > 10 || b.WarnAt[0] < 1 || b.WarnAt[len(b.WarnAt)-1] > 100 {
		return errors.New("warnAt: at most 10 percentages from 1 to 100")
	}
	b.Series = string(b.Unit) + " " + b.Span.String()
	if b.Span.Rolling {
		b.Series += " rolling"
	}
	return nil
}

func (s *Snapshot) compileBudgets(specs []BudgetSpec) (wrong []error) {
	for _, spec := range specs {
		b, err := spec.compile(s.Settings.TimeZone)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		s.budgets = append(s.budgets, b)
	}
	return wrong
}

// Budgets returns all budgets in the order of the document.
func (s *Snapshot) Budgets() []*Budget { return s.budgets }

// budgetsOf returns what a key's requests must fit into.
func (s *Snapshot) budgetsOf(k *Key, u *User) (accounts []Account) {
	for _, b := range s.budgets {
		subject := b.Scope.String()
		switch b.Scope {
		case Scope{ScopeOrganization, ""}, Scope{ScopeUser, u.Name}, Scope{ScopeKey, k.Name}:
		case Scope{ScopeTeam, u.Team}:
			if b.PerMember {
				subject = Scope{ScopeUser, u.Name}.String()
			}
		default:
			continue
		}
		accounts = append(accounts, Account{b, subject})
	}
	return accounts
}
