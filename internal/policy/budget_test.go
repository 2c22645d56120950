package policy_test

import (
	"strings"
	"testing"

	"carpool/internal/policy"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"5 USD": "5.00 USD", "0.25 USD": "0.25 USD", "0.000001 USD": "0.000001 USD", "1000000000 USD": "1000000000.00 USD",
		"2M tokens": "2000000 tokens", "1.5M tokens": "1500000 tokens", "500k tokens": "500000 tokens", "2,000,000 tokens": "2000000 tokens",
		"2000000 tokens": "2000000 tokens", "0 tokens": "0 tokens", "007.5 USD": "7.50 USD",
	} {
		amount, unit, err := policy.ParseAmount(text)
		if got := policy.FormatAmount(amount, unit); err != nil || got != want {
			t.Errorf("%q is %q, %v; want %q", text, got, err, want)
		}
	}
	if n, _, _ := policy.ParseAmount("1.5 USD"); n != 1_500_000 {
		t.Errorf("1.5 USD are %d micro-dollars", n)
	}
	for _, text := range []string{
		"", "5", "USD", "5USD", "5 usd", "5 EUR", "-5 USD", "+5 USD", ".5 USD", "5. USD", "1e3 tokens", "1.5 tokens", "5  USD", "5 USD ",
		"2M", "2 M tokens", "2M USD", "1.2345k tokens", "2Mtokens", "0.0000001 USD", "1000000001 USD", "1099511627777 tokens", "99999999999999999999 tokens",
	} {
		if n, unit, err := policy.ParseAmount(text); err == nil {
			t.Errorf("%q is %d %s", text, n, unit)
		}
	}
}

func TestBudgetSpecsThatAreWrong(t *testing.T) {
	t.Parallel()
	right := policy.BudgetSpec{Name: "b", Scope: "user/alice", Amount: "5 USD", Window: "day", Mode: "strict", TimeZone: "Europe/Berlin"}
	if err := right.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*policy.BudgetSpec){
		"name is required":      func(b *policy.BudgetSpec) { b.Name = "" },
		"scope is required":     func(b *policy.BudgetSpec) { b.Scope = "" },
		`unknown scope "alice"`: func(b *policy.BudgetSpec) { b.Scope = "alice" },
		`scope "user": the name is missing; it is user/NAME`: func(b *policy.BudgetSpec) { b.Scope = "user" },
		`unknown scope "organization/x"`:                     func(b *policy.BudgetSpec) { b.Scope = "organization/x" },
		"a name has 1 to 63":                                 func(b *policy.BudgetSpec) { b.Scope = "team/a b" },
		"is no amount":                                       func(b *policy.BudgetSpec) { b.Amount = "5" },
		"window is required":                                 func(b *policy.BudgetSpec) { b.Window = "" },
		`"fortnight" is no window`:                           func(b *policy.BudgetSpec) { b.Window = "fortnight" },
		`unknown mode "hard"; known: strict`:                 func(b *policy.BudgetSpec) { b.Mode = "hard" },
		`time zone "Mars" is not known`:                      func(b *policy.BudgetSpec) { b.TimeZone = "Mars" },
		"it is in tokens, and the amount":                    func(b *policy.BudgetSpec) { b.Overdraft = "5 tokens" },
		"a lifetime cannot be rolling":                       func(b *policy.BudgetSpec) { b.Window, b.Rolling = "lifetime", true },
		"a rolling window has no timeZone":                   func(b *policy.BudgetSpec) { b.Rolling = true },
		"perMember is for the budget of a":                   func(b *policy.BudgetSpec) { b.PerMember = true },
		"needs no overdraft":                                 func(b *policy.BudgetSpec) { b.Soft, b.Overdraft = true, "1 USD" },
		"at most 10 percentages from 1 to 100":               func(b *policy.BudgetSpec) { b.WarnAt = []int{50, 101} },
		"message has more than 500 bytes":                    func(b *policy.BudgetSpec) { b.Message = strings.Repeat("x", 501) },
	} {
		b := right
		change(&b)
		if err := b.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", b, err, want)
		}
	}
}

func TestWhoseBudgets(t *testing.T) {
	t.Parallel()
	budget := func(name, scope string, perMember bool) policy.BudgetSpec {
		return policy.BudgetSpec{Name: name, Scope: scope, Amount: "1 USD", Window: "day", PerMember: perMember}
	}
	alice, bob := policy.KeyHash{1}, policy.KeyHash{2}
	s, err := policy.Compile(&policy.Document{
		Settings: policy.Settings{TimeZone: "Asia/Tokyo"},
		Users:    []policy.User{{Name: "alice", Team: "core"}, {Name: "bob"}},
		Keys:     []policy.Key{{Name: "a", User: "alice", Hash: alice}, {Name: "b", User: "bob", Hash: bob}},
		Budgets: []policy.BudgetSpec{
			budget("all", "organization", false), budget("core", "team/core", false), budget("each", "team/core", true),
			budget("alice", "user/alice", false), budget("laptop", "key/a", false), budget("others", "team/others", false),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for hash, want := range map[policy.KeyHash]string{
		alice: "all=organization core=team/core each=user/alice alice=user/alice laptop=key/a",
		bob:   "all=organization",
	} {
		c, _ := s.Caller(hash)
		var got []string
		for _, a := range c.Budgets {
			got = append(got, a.Name+"="+a.Subject)
			if zone := a.Span.Zone.String(); zone != "Asia/Tokyo" {
				t.Errorf("%s counts by the calendar of %s", a.Name, zone)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	b := policy.Budget{Amount: 1000, WarnAt: []int{75, 95}}
	for used, want := range map[int64]int{0: 0, 749: 0, 750: 75, 949: 75, 950: 95, 5000: 95} {
		if got := b.Threshold(used); got != want {
			t.Errorf("%d used: %d %%, want %d", used, got, want)
		}
	}
}
