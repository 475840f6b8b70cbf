package rules

import (
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// profilePrefix begins the owners of profiles' rules.
const profilePrefix = "Profile "

// encoding makes words that every tool reads as a name.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// hash is 120 bits: nobody who may write policy can make two names collide.
func hash(words ...string) string {
	all := make([]byte, 0, 128)
	for _, w := range words {
		// With its length, "a", "bc" is not "ab", "c".
		all = append(strconv.AppendInt(all, int64(len(w)), 10), ':')
		all = append(all, w...)
	}
	sum := sha256.Sum256(all)
	return encoding.EncodeToString(sum[:15])
}

// rulesChain names the chain of a policy's ("p-") or profile's ("r-") rules.
func rulesChain(id desired.RulesID) string {
	if strings.HasPrefix(id.Owner, profilePrefix) {
		return "r-" + hash(id.Owner, id.Direction.String())
	}
	return "p-" + hash(id.Owner, id.Direction.String())
}

// RuleCounter names the counter of a policy's rule, by its position.
func RuleCounter(id desired.RulesID, index int) string {
	return "c-" + hash(id.Owner, id.Direction.String(), strconv.Itoa(index))
}

// note cuts a text to what a note may be.
func note(s string) string {
	return printable(s[:min(len(s), 120)])
}
