// Asks the npm package @pydantic/genai-prices: node genai.cjs FOLDER-OF-THE-PACKAGE < questions.
//
// Questions and answers are JSON. {"catalogue": [provider, …]} is answered with the ids of its Claude models by provider. {"prices":
// [{provider, model, day, usage}, …]} is answered with micro-dollars, null where the package knows no price.
const genai = require(process.argv[2])

const question = JSON.parse(require('node:fs').readFileSync(0, 'utf8'))
const answer = {}
for (const provider of question.catalogue ?? []) {
  answer[provider] = genai.findProvider({ providerId: provider }).models
    .filter((m) => /claude/.test(m.id + JSON.stringify(m.match)))
    .map((m) => m.id)
}
if (question.prices) {
  answer.prices = question.prices.map(({ provider, model, day, usage }) => {
    const price = genai.calcPrice(usage, model, { providerId: provider, timestamp: new Date(day + 'T12:00:00Z') })
    return price ? price.total_price * 1e6 : null
  })
}
process.stdout.write(JSON.stringify(answer))
