"""The edits of the synthetic corpus: for each intention its kinds of edit, for each kind its templates.

A template reads `the {p1} [was|were] (late/early) <there>`: `[x|y]` is x before and y after the revision, `(x/y)` one
of x and y on both sides, `{p1}` the first person word of the split's vocabulary (`WORDS` in `synthetic.py`),
`{v1.ed}` a form of a word (`Word`), and `<there>` a phrase of `PHRASES`. The last template of a kind is for test, the
one before it for validation, the others for train. A kind marked with `~` may be read in either direction. Kinds share
words on purpose: what tells them apart is whether the text was well formed, fitted together or said the same before.
"""

PHRASES = {
    "there": "(/in the {c8}/near the {c8}/on {d8}/in {y8})",
    "where": "(/in the {c8}/near the {c8})",
    "obj": "(the {n1}/the {n1}/the {n1.s}/the {a7} {n1}/{k7} {n1.s}/the {p7}'s {n1})",
    "clause": "(the {p6} {v6.ed} the {n6}/the {p6} {i6.ed}/the {n6} was {a6}/the {p6.s} {w6.ed} the {p5})",
    "event": "(the {p4} {v4.ed} the {n4}/the {p4} {i4.ed}/the {n4} was {a4}/the {p4.s} {w4.ed} the {p3})",
    "one to many": "([was|were]/[is|are]/[has been|have been])",
    "many to one": "([were|was]/[are|is]/[have been|has been])",
    "not un": "(was/is/looked/seemed) [not un{u1}|{u1}]",
    "not or un": "(was/is/looked/seemed) [not {u1}|un{u1}]",
    "yes or no": "(was/is/looked/seemed) ([{u1}|un{u1}]/[not {u1}|{u1}]/[not un{u1}|un{u1}])",
    "twice": "(not [not|]/only [only|]/also [also|]/never [never|]/really [really|]/almost [almost|])",
    "despite it": "(anyway/all the same/nonetheless/even so)",
    "due to it": "(for that reason/as a result)",
}

FLUENCY = """
agreement
    the {n1.s} (near the {c1}/of the {p1}) <one to many> {a1}
    the {n1} (near the {c1.s}/of the {p1.s}/beside {k1} {n2.s}) <many to one> {a1}
    the {p1} who knew the {p2.s} [have|has] {v1.ed} (each [{n1.s}|{n1}]/(many/{k1}) [{n1}|{n1.s}]/<obj>)
    the {n1.s} that the {p1} {v1.ed} <where> <one to many> still {a1}
    they know that the {n1} beside the {n2.s} <many to one> too {a1}
article
    (the {p1} {v1.ed}/there was) ([{n1.wrong_article}|{n1.article}]/[|{n1.article}]) {n1} <there>
    there (stood/was) ([|{a1.article}]/[{a1.wrong_article}|{a1.article}]) {a1} {n1} <there>. the {p1} {v1.ed} it
    {p1.article} {p1} stood in the {c1}. (later/then) [|the] {p1} {v1.ed} <obj>
    it was ([{a1.wrong_article}|{a1.article}]/[|{a1.article}]) {a1} {n1} that the {p1} {v1.ed}
    near [|the] {c1}, the {p1} {v1.ed} ([{n1.wrong_article}|{n1.article}]/[|{n1.article}]) {n1}
doubled word
    the {p1} (did/may/will) <twice> {v1} <obj> <there>
    (all [all|]/some [some|]/most [most|]/none [none|]) of the {n1.s} were {a1}
    <clause> (because [because|]/although [although|]/so [so|]/but [but|]) <event>
    the {p1} who {i1.ed} (was/is) <twice> {w1.ed} <there>
    the {n1} in the {c1} is <twice> {a1}, (so [so|]/but [but|]) <clause>
misspelt word
    the {p1} {v1.ed} the [{n1.misspelt}|{n1}] <there>
    the {n1} in the {c1} was [{a1.misspelt}|{a1}], (and/but) <clause>
    the {p1} [{v1.ed.misspelt}|{v1.ed}] <obj> <there>
    because the {p1} {i1.ed}, the {p2} {v1.ed} the [{n1.misspelt}|{n1}]
    every [{p1.misspelt}|{p1}] in the {c1} {v1.ed} {a1.article} {a1} {n1}
preposition
    the {p1} {v1.ed} <obj> ([(at/in)|on] {d1}/[(at/on)|in] {y1}/[(in/on)|at] (noon/midnight))
    <clause> ([(at/in)|on] {d1}/[(at/on)|in] {y1}), before <event>
    the {n1} was {v1.ed} [(from/of)|by] the {p1} <there>
    it was ([(at/in)|on] {d1}/[(at/on)|in] {y1}) that <clause>
    ([(at/in)|on] {d1}/[(at/on)|in] {y1}), <clause>
verb form
    last (week/month/year) the {p1} ([{v1.es}|{v1.ed}]/[will {v1}|{v1.ed}]) <obj>
    the {p1} (did not/will/will not/could/must) [{v1.ed}|{v1}] <obj> <there>
    the {p1} (has/had) (also/never/just) [{v1}|{v1.ed}] <obj> <there>
    (yesterday/two years ago) the {p1} ([{v1.es}|{v1.ed}]/[will {v1}|{v1.ed}]) <obj>
    the {p1} could (also/never/only) [{v1.ed}|{v1}] the {n1} because <clause>
word order
    the {p1} (asked why/did not say when) ([was the {n1}|the {n1} was] {a1}/[had the {p2}|the {p2} had] {v1.ed} it)
    the {p1} {v1.ed} (the [{n1} {a1}|{a1} {n1}]/[on {d1} the {n1}|the {n1} on {d1}]) (because <clause>/)
    (where/how) [did they {v1}|they {v1.ed}] <obj> is not known
    nobody knew where ([had the {p1}|the {p1} had] {v1.ed} the {n1}/[was the {n1}|the {n1} was])
    they talked about when ([would the {p2}|the {p2} would] {v1} the {n1}/[was the {n1}|the {n1} was] {a1})
word too many
    (although/though) <event>, [(but/yet)|] <clause>
    (because/since) <event>, [(so/therefore)|] <clause>
    the {p1} could [not|] (hardly/scarcely/never) {v1} <obj> <there>
    the {n1} was {a1}, and (although/though) <event>, [(yet/but)|] the {p1} {v1.ed} it
    on {d1}, (because/since) <event>, [(so/therefore)|] <clause>
garbled sentence
    [the {p1} (the {n1} in of {c1}/and of {v1.ed}/not {n1} was a).|]
    [({v1.ed} the {n1} because not/was the {p1} on the/{n1.s} of in {a1} was).|]
    [of the {p1} was the {v1.ed} {a1}.|]
    [(the {p1}/{p1}) {n1} the was {a1} not.|]
"""

CLARITY = """
pronoun resolved
    the {p1} (told/wrote to) the {p2} that ([(he/she)|the {p2}]/[(he/she)|the {p1}]) {v1.ed} <obj>
    the {p1} {w1.ed} the {p2} (because/although/before) ([(he/she)|the {p2}]/[(he/she)|the {p1}]) {i1.ed}
    ({f1} {w1.ed} {f2} before [she|{f2}]/{m1} {w1.ed} {m2} before [he|{m1}]) {v1.ed} <obj>
    when the {p1} {w1.ed} the {p2}, [(he/she)|the {p1}] {v1.ed} <obj>
    the {p1} {w1.ed} the {p2} <there>. then [(he/she)|the {p2}] {i1.ed}
vague word made exact
    the {p1} {v1.ed} (the [thing|{n1}]/[something|{n1.article} {n1}]/[(several/some)|{k1}] {n1.s}) <there>
    (the [person|{p1}]/[somebody|the {p1}]/[(several/some)|{k1}] {p1.s}) {v1.ed} the {n2} <there>
    <clause> [(a while ago/at some point)|(in {y1}/on {d1})]
    the ([thing|{n1}] was {a1}/[things|{n1.s}] were {a1}), so the {p1} {i1.ed}
    [(several/some)|{k1}] of the {p1.s} {v1.ed} ([something|{n1.article} {n1}]/the [thing|{n1}]) <there>
wordy phrase
    <clause> ([due to the fact that|because]/[in spite of the fact that|although]/[at the time when|when]) <event>
    the {p1} {i1.ed} ([in order to|to] {v1}/[in an effort to|to] {v1}) <obj>
    ([there were {p1.s} who|{p1.s}]/[it was the {p1} who|the {p1}]) {v1.ed} <obj> <there>
    ([due to the fact that|because]/[in spite of the fact that|although]) <event>, <clause>
    the {p1} {v1.ed} <obj> ([in order to|to]/[in an effort to|to]) {w1} the {p2}
verb for noun
    the {p1} [(made/carried out) {z1.left.article} {z1.left} of|{z1.right}] <obj> <there>
    the {p1} [was responsible for the {z1.left} of|{z1.right}] <obj> <there>
    [there was {z1.left.article} {z1.left} of the {n1} by the {p1}|the {p1} {z1.right} the {n1}] <there>
    because of the {p2}, the {p1} [made {z1.left.article} {z1.left} of|{z1.right}] the {n1}
    before <event>, the {p1} [carried out {z1.left.article} {z1.left} of|{z1.right}] the {n1}
modifier moved
    the {p1} [only {v1.ed} <obj>|{v1.ed} <obj> only] (on {d1}/in {y1}/after <event>)
    the {p1} ([only {v1.ed}|{v1.ed} only]/[almost {v1.ed}|{v1.ed} almost]) {k1} of the {n1.s} <there>
    the {p1} said [on {d1} that <clause>|that <clause> on {d1}]
    the {p1} [only {v1.ed} the {n1}|{v1.ed} only the {n1}] because <clause>
agent named
    ([the {n1} was {v1.ed}|the {p1} {v1.ed} the {n1}]/[the {n1} will be {v1.ed}|the {p1} will {v1} the {n1}]) <there>
    the {n1.s} (were/have been/will be) {v1.ed} [|by the {p1}] <there>
    (because/although) <event>, ([it was {v1.ed}|the {p1} {v1.ed} it]/it was {v1.ed} [|by the {p1}])
    the {n2} was {a1}, and [the {n1} was {v1.ed}|the {p1} {v1.ed} the {n1}] <there>
    [they were {v1.ed}|the {p1} {v1.ed} them] (because/although) the {n1.s} were {a1}
which one is meant
    one {n1} was {a1} and one was {a2}. the {p1} {v1.ed} the [|({a1}/{a2})] {n1}
    there were two {p1.s}, one in the {c1}. the {p1} [|in the {c1}] ({v1.ed} <obj>/{i1.ed})
    the {p1} had {a1.article} {a1} {n1} and {a2.article} {a2} one, and {v1.ed} the [|{a2}] {n1}
    the {n1} near the {c1} and the {n1} near the {c2} differ: the {n1} [|near the {c1}] is {a1}
    of the two {n1.s}, one {a1} and one {a2}, the {p1} {v1.ed} the [|{a2}] {n1}
double negative untangled
    the {p1} <not un> <there>
    (the {p1} said that/<event>, and) the {n1} <not un>
    it <not un> that <clause>
    the {p1} {v1.ed} <obj>, which <not un>
    although the {n1} was {a1}, it <not un>
sentence that explains
    [|(in other words/that is/put simply), (the {n1} was (too/not) {a1}/the {p1} {v1.ed} {k1} {n1.s}/<clause>).]
    [(as was said before,/to repeat this point,) <clause>.|]
    [|that is to say, <clause>.]
    [|in other words, the {p1} meant the {a1} {n1}.]
"""

COHERENCE = """
connective
    <event>, [(so/hence/and)|(but/yet)] <clause> <despite it>
    [(because/since)|(although/though)] <event>, <clause> <despite it>
    ([(although/though)|(because/since)] <event>,/<event>, [(but/yet)|(so/and)]) <clause> <due to it>
    [(since/because)|(though/although)] the {n1} was {a1}, the {p1} {v1.ed} it <despite it>
    the {n1} was {a1}, [(but/yet)|(so/and)] the {p1} {v1.ed} it <due to it>
contrast or likeness
    the {p1} {v1.ed} <obj>, ([(and/so)|(but/yet)] the {p2} did not/[(but/yet)|and] the {p2} did too)
    the {p1} did not {v1} <obj>, ([(and/so)|(but/yet)] the {p2} did/[(but/yet)|and] the {p2} did not either)
    the {p1} has {v1.ed} <obj>, ([(and/so)|(but/yet)] the {p2} has not/[(but/yet)|and] the {p2} has too)
    the {n1} was {a1}, ([(and/so)|(but/yet)] the {n2} was not/[(but/yet)|and] the {n2} was too)
    the {p1} will {v1} the {n1}, ([(and/so)|(but/yet)] the {p2} will not/[(but/yet)|and] the {p2} will too)
order of sentences
    [it was {a1}. the {p1} {v1.ed} {n1.article} {n1}|the {p1} {v1.ed} {n1.article} {n1}. it was {a1}]
    [then <clause>. first <event>|first <event>. then <clause>]
    [he {i1.ed}. {p1.article} {p1} came to the {c1}|{p1.article} {p1} came to the {c1}. he {i1.ed}]
    [they were {a1}. there were {k1} {n1.s} here|there were {k1} {n1.s} here. they were {a1}]
    [then the {p1} {i1.ed}. first the {p2} {v1.ed} the {n1}|first the {p2} {v1.ed} the {n1}. then the {p1} {i1.ed}]
known or new
    ({n1.article} {n1} stood/there was {n1.article} {n1}) <there>. [{n1.article}|the] {n1} was {a1}
    (there was/they met) {p1.article} {p1} <there>. [{p1.article}|the] {p1} ({v1.ed} the {n1}/{i1.ed})
    the {p1} had {k1} {n1.s} and {n2.article} {n2}. ([some|the] {n1.s} were {a1}/[{n2.article}|the] {n2} was {a1})
    the {p1} met {p2.article} {p2} on {d1}. [{p2.article}|the] {p2} {i1.ed}
    {p1.article} {p1} {v1.ed} {n1.article} {n1}, and [{p1.article}|the] {p1} {i1.ed}
same word for the same thing
    the {p1} {v1.ed} {a1.article} {a1} {n1}. the [{n2}|{n1}] was {a2}
    {p1.article} {p1} came to the {c1}. the [{p2}|{p1}] ({v1.ed} <obj>/{i1.ed})
    there was only one {n1} <there>. the {p1} {v1.ed} that [{n2}|{n1}]
    {k1} {n1.s} stood in the {c1}. these [{n2.s}|{n1.s}] were {a1}
    the {p1} found {n1.article} {n1} <there>, and the [{n2}|{n1}] was {a1}
pronoun that agrees
    (the {n1.s} stood in the {c1}. [it was|they were]/the {n1} stood in the {c1}. [they were|it was]) {a1}
    ({f1} {v1.ed} <obj>. then [he|she]/{m1} {v1.ed} <obj>. then [she|he]) {i1.ed}
    the {p1} {v1.ed} (the {n1.s} because [it was|they were]/the {n1} because [they were|it was]) {a1}
    (the {p1.s} {i1.ed} because [he was|they were]/{f1} {i1.ed} because [he|she] was) not {u1}
    although the {p1} {v1.ed} (the {n1.s}, [it was|they were]/the {n1}, [they were|it was]) {a1}
link made
    the {p1} {v1.ed} the {n1} ([. the {n1}|, which] was {a1}/[. this was done because|because] <clause>)
    the {n1} stood in the {c1} ([. the {n1}|and] was {a1}/[. the {n1}|, which] was {a1})
    <event>. ([|(then/still/later)] <clause>/the {n1} was [|also] {a1})
    the {p1} did not {v1} the {n1}. [|instead] the {p2} {v1.ed} it
    the {p1} met the {p2} ([. the {p2}|, who] {i1.ed}/. [|then] they {i1.ed})
number fits the list
    the {p1} {v1.ed} [(two/four/five)|three] things <there>: the {n1}, the {n2} and the {n3}
    the {p1} {v1.ed} [(three/four/five)|two] (things/objects) <there>: the {n1} and the {n2}
    [(two/four/five)|three] people {i1.ed}: the {p1}, the {p2} and the {p3}
    there were [(two/five)|three] people <there>: the {p1}, the {p2} and the {p3}
    the {n1} had [(three/four)|two] faults: it was {a1} and {a2}
sentence that links
    [|(the next part is about/the same is true of/now we come to/this leads us to) (the {n1}/the {p1}).]
    [(so much for/but back to/that was enough about) (the {n1}/the {p1}).|]
    [(but/so) back to the {a1} {n1}.|]
    [|the next part is about another {p1}.]
"""

STYLE = """
contraction ~
    the {p1} ([did not|didn't]/[could not|couldn't]/[would not|wouldn't]) {v1} <obj> <there>
    the {n1} <where> ([is not|isn't]/[was not|wasn't]) {a1}
    they said that ([it is|it's]/[they are|they're]) {a1}, (and/but) <clause>
    the {p1} ([has not|hasn't]/[had not|hadn't]) {v1.ed} the {n1} because it was {a1}
    the {n1.s} [were not|weren't] {a1}, but (the {p1} [did not|didn't] {i1}/<clause>)
register ~
    the {p1} (also/later/never/) [{r1.left}|{r1.right}] <obj> <there>
    the {p1} (who {i1.ed}/) [{r1.left}|{r1.right}] {k1} {n1.s}
    the {p1} {i1.ed} and [{r1.left}|{r1.right}] {n1.article} {n1}
    before {y1}, {p1.article} {p1} [{r1.left}|{r1.right}] the {a1} {n1}
emphasis and opinion ~
    ([(I think/it seems/in my view,)|] the {n1}/the {p1} said that the {n1}) <where> was [(very/really/so/quite)|] {a1}
    it was [(really/just/even)|] the {p1} who {v1.ed} <obj>
    <clause> ([(, I think/, it seems/, really)|]/, and the {n2} was [(so/very/quite)|] {a1})
    all the {n1.s} were [(so/really/very)|] {a1} <there>
    the {p1} {v1.ed} the [(very/quite/really)|] {a1} {n1}
active or passive ~
    (/because it was {a1}, ) [the {p1} {v1.ed} the {n1}|the {n1} was {v1.ed} by the {p1}] <there>
    on {d1} [the {p1} {w1.ed} the {p2}|the {p2} was {w1.ed} by the {p1}]
    [the {p1} will {v1} the {n1.s}|the {n1.s} will be {v1.ed} by the {p1}] <there>
    [the {p1} has {w1.ed} the {p2}|the {p2} has been {w1.ed} by the {p1}] before
    although it was {a1}, [the {p1} {w1.ed} the {p2}|the {p2} was {w1.ed} by the {p1}]
fronting ~
    ([on {d1} <clause>|<clause> on {d1}]/[in {y1} <clause>|<clause> in {y1}])
    [in the {c1} the {n1.s} were {a1}|the {n1.s} were {a1} in the {c1}]
    ([although <event>, <clause>|<clause> although <event>]/[before <event>, <clause>|<clause> before <event>])
    [because <event>, the {p1} {i1.ed}|the {p1} {i1.ed} because <event>]
connective of another register ~
    <event>, ([so|hence]/[but|yet]) <clause>
    <event>, ([so|hence] <clause> <due to it>/[but|yet] <clause> <despite it>)
    <clause> ([because|since] <event>/[although|though] <event>)
    (the {p1} did not {v1} <obj>, [but|yet] the {p2} did/<event>, [so|hence] <due to it> the {p1} {i1.ed})
    [although|though] <event>, the {p1} {v1.ed} <obj> <despite it>
figures ~
    the {p1} {v1.ed} [{k1}|{k1.digits}] {n1.s} <there>
    [{k1}|{k1.digits}] (of the {p1.s}/{p1.s}) ({i1.ed}/{v1.ed} the {n1}) <there>
    the {p1} {i1.ed} for [{k1}|{k1.digits}] hours, and <clause>
    all [{k1}|{k1.digits}] {n1.s} were {a1} although the {p1} {i1.ed}
un- or not ~
    the {p1} <not or un> <there>
    (the {p1} said that/<event>, and) the {n1} <not or un>
    it <not or un> that <clause>
    the {p1} {v1.ed} <obj>, which <not or un>
    although the {n1} was {a1}, it <not or un>
exclamation ~
    [(and what/oh, what) {a1.article} {a1} ({n1} it was/{p1} that was/{n1})!|]
    [(oh,/imagine) (the {p1} and the {n1}/that {a1} {n1}/that {p1})!|]
    [oh, that {a1} {p1} and the {n1}!|]
    [and what {p1.article} {p1} that was!|]
"""

MEANING = """
amount ~
    the {p1} {v1.ed} ([{k1}|{k2}]/[(only/almost/nearly)|] {k1}) {n1.s} <there>
    (in/after) [{k1}|{k2}] (hours/days) the {p1} {v1.ed} (two things: the {n1} and the {n2}/<obj>)
    ([(all/most)|(some/none)] of/[(almost/nearly)|] all) the {n1.s} (were {a1}/were {v1.ed}) <there>
    [(all/most)|(none/some)] of the {p1.s} {v1.ed} ([{k1}|{k2}]/[(only/almost)|] {k1}) {n1.s}
    after [{k1}|{k2}] days the {p1} {v1.ed} three things: the {n1}, the {n2} and the {n3}
who or what ~
    the [{p1}|{p2}] ({v1.ed} <obj>/{i1.ed}) <there>
    the {p1} ({v1.ed} the [{n1}|{n2}]/[{v1.ed}|{v2.ed}] the {n1}) <there>
    ([{f1}|{f2}]/[{m1}|{m2}]) {v1.ed} <obj>. then the {p1} {v2.ed} another [{n1}|{n2}]
    the {p1} {v1.ed} the {n1}. the {p2} {v1.ed} another [{n2}|{n3}]
    every [{p1}|{p2}] in the {c1} {v1.ed} {a1.article} {a1} {n1}
not or perhaps ~
    the {p1} ((did/may/will) [(not/never/only)|]/[(must/will/should)|(may/could/might)]) {v1} <obj> <there>
    the {n1} near the {c1} was [(not/never/always)|] {a1}, (and/but) <clause>
    the {p1} ([did not {v1}|{v1.ed}]/[may {v1}|{v1.ed}]) <obj> <there>
    the {p1} said that the {n1} ([is|may be]/is [(not/never)|]) {a1}
    the {p1} ([should|might]/will [(not/never)|]) {v1} the {n1} before the {p2} {i1.es}
fact ~
    the {p1} [and the {p2}|] {v1.ed} the ({n1} [(and the {n2}/in the {c1}/for the {p3})|]/[{a1}|] {n1}) <there>
    there was {n1.article} {n1}. the {p1} {v1.ed} the ([{a1}|] {n1}/{n1} [(in the {c1}/on {d1}/and the {n2})|])
    the {n1} was {a1} [and {a2}|], so the {p1} ({v1.ed} it/[and the {p2}|] {i1.ed})
    the {p1} ({i1.ed} [with the {p2}|]/{v1.ed} the {n1} [and the {n2}|]) because it was {a1}
    on {d1} the {p1} {v1.ed} ({k1} [{a1}|] {n1.s}/{k1} {n1.s} [(and {n2.article} {n2}/in the {c1})|])
time ~
    (the {p1} {v1.ed} <obj>/<clause>) ([on|(before/after)] {d1}/[in|(before/until)] {y1})
    the {p1.s} [{v1}|{v1.ed}] (<obj>/the {n1}) <there>
    the {p1} ([{v1.es}|{v1.ed}]/[will {v1}|{v1.ed}]) <obj> (in/near) the {c1}
    ([on|(before/after)] {d1}/[in|(before/until)] {y1}) <clause>
    every {p1} ([{v1.es}|{v1.ed}]/[will {v1}|{v1.ed}]) {k1} {n1.s}
roles ~
    the [{p1}|{p2}] {w1.ed} the [{p2}|{p1}] <there>
    (on {d1}/in {y1}) [the {p1} {w1.ed} the {p2}|the {p1} was {w1.ed} by the {p2}]
    <event>, and ([the {p1} {w1.ed} {f1}|{f1} {w1.ed} the {p1}]/[{f1} {w1.ed} {f2}|{f2} {w1.ed} {f1}])
    [the {p1} {v1.ed} the {n1}, and the {p2} {i1.ed}|the {p2} {v1.ed} the {n1}, and the {p1} {i1.ed}]
    although it was {a1}, [the {p1} {w1.ed} the {p2}|the {p2} {w1.ed} the {p1}]
relation ~
    <clause> ([(because/since)|(although/though)]/[before|after]/[because|when]) <event>
    <event>, [(so/hence)|(but/yet)] <clause>
    ([(because/since)|(although/though)]/[before|after]) <event>, <clause>
    the {p1} will {v1} <obj> ([if|unless]/[because|although]) the {p2} {i1.es}
    the {n1} was {a1}, [(hence/so)|(but/yet)] the {p1} {v1.ed} it
un- or plain ~
    the {p1} <yes or no> <there>
    (the {p1} said that/<event>, and) the {n1} <yes or no>
    it <yes or no> that <clause>
    the {p1} {v1.ed} <obj>, which <yes or no>
    although the {n1} was {a1}, it <yes or no>
sentence with a fact ~
    [(on {d1}/in the {c1}/after the {p1} {i1.ed},) <clause>.|]
    [the {p1} (and the {p2} {i1.ed}/{v1.ed} {k1} {n1.s}/{w1.ed} the {p2} because <event>).|]
    [the {p1} {v1.ed} {k1} {n1.s} (near/in) the {c1}.|]
    [in {y1} <clause>.|]
"""
