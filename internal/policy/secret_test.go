package policy_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"carpool/internal/policy"
)

const credential = "sk-ant-very-secret"

// assertHidden fails when out shows the credential as text, or as numbers or hexadecimal digits.
func assertHidden(t *testing.T, how, out string) {
	t.Helper()
	for _, form := range []string{
		credential, credential[3:10], fmt.Sprintf("%x", credential), fmt.Sprintf("%X", credential), fmt.Sprintf("% x", credential),
		strings.Trim(fmt.Sprintf("%d", []byte(credential)), "[]"),
	} {
		if strings.Contains(out, form) {
			t.Errorf("%s shows the credential: %s", how, out)
			return
		}
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	t.Parallel()
	secret := policy.NewSecret(credential)
	type open struct{ Secret policy.Secret }
	type closed struct{ secret policy.Secret }
	values := map[string]any{
		"value": secret, "pointer": &secret, "slice": []policy.Secret{secret}, "map": map[string]policy.Secret{"a": secret},
		"key": map[policy.Secret]int{secret: 1}, "field": open{secret}, "hidden": closed{secret}, "hidden pointer": &closed{secret},
		"hidden in slice": []closed{{secret}}, "any": []any{secret, &secret, closed{secret}},
		"upstream": policy.Upstream{Name: "main", Credential: secret}, "document": &policy.Document{Upstreams: []policy.Upstream{{Credential: secret}}},
	}
	for name, v := range values {
		for _, verb := range "vsqdxXtTpbceEfgGoOUw!" {
			for _, flags := range []string{"", "+", "#", "-30", " ", "030", ".3"} {
				format := "%" + flags + string(verb)
				assertHidden(t, name+" "+format, fmt.Sprintf(format, v))
			}
		}
		assertHidden(t, name+" Println", fmt.Sprintln(v))
		assertHidden(t, name+" Errorf", fmt.Errorf("cannot use %v", v).Error())
		assertHidden(t, name+" panic", fmt.Sprint(errors.New(fmt.Sprint(v))))
	}
	if got := fmt.Sprintf("%v %s %+v %#v %q", secret, secret, secret, secret, secret); strings.Count(got, "********") != 5 {
		t.Errorf("the mask is not shown everywhere: %s", got)
	}
	if secret.Reveal() != credential {
		t.Errorf("Reveal() = %q", secret.Reveal())
	}
}

func TestSecretIsNeverEncoded(t *testing.T) {
	t.Parallel()
	type holder struct {
		Name   string
		Secret policy.Secret
		inner  policy.Secret
	}
	v := holder{"main", policy.NewSecret(credential), policy.NewSecret(credential)}
	asJSON, err := json.Marshal(map[string]any{"value": v, "pointer": &v, "list": []policy.Secret{v.inner}})
	if err != nil || !bytes.Contains(asJSON, []byte("********")) {
		t.Errorf("json: %s, %v", asJSON, err)
	}
	assertHidden(t, "json", string(asJSON))
	asYAML, err := yaml.Marshal(map[string]any{"value": v, "pointer": &v})
	if err != nil || !bytes.Contains(asYAML, []byte("********")) {
		t.Errorf("yaml: %s, %v", asYAML, err)
	}
	assertHidden(t, "yaml", string(asYAML))
	asXML, _ := xml.Marshal(v)
	assertHidden(t, "xml", string(asXML))
	var asGob bytes.Buffer
	_ = gob.NewEncoder(&asGob).Encode(v)
	assertHidden(t, "gob", asGob.String())

	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var out bytes.Buffer
		log := slog.New(handler(&out)).With(slog.Any("with", v))
		log.Info("a line", slog.Any("secret", v.Secret), slog.Any("holder", v), slog.Any("pointer", &v), slog.Group("group", slog.Any("list", []any{v.Secret, v})))
		if !strings.Contains(out.String(), "********") {
			t.Errorf("%s: no mask: %s", name, out.String())
		}
		assertHidden(t, name, out.String())
	}
}

func TestSecretZero(t *testing.T) {
	t.Parallel()
	var none policy.Secret
	if !none.IsZero() || none.Reveal() != "" || !policy.NewSecret("").IsZero() || policy.NewSecret("x").IsZero() {
		t.Error("only a secret without text is zero")
	}
	if got := fmt.Sprintf("%v %+v %#v %d", none, none, none, none); strings.Count(got, "********") != 4 {
		t.Errorf("a secret shows that it is empty: %s", got)
	}
}
