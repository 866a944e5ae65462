"""Sentence frames, tones and names from which `grammar` writes news.

Slots: {N} {M} names, {W} {V} roles, {aW} {aV} the same with an article, {P} a person, {L} their last name, {t} {u} {v} plural
things, {A} {B} acts (third person), {H} {I} how-to verb phrases, {C} {E} cities, {k} a small number, {D} a weekday.
A frame never joins two slots in a way that needs agreement in number, so any filling reads as English.
"""

FORMS = ("report", "howto", "opinion", "list")
TONES = ("plain", "alarming", "uplifting")

# What a report's title may end in: the tone must show by meaning, so many wordings and few shared words.
TAILS = {
    "plain": (
        "in {C}", "on {D}", "officials say", "this week", "as {t} return", "after talks in {C}", "according to {N}",
        "ahead of {t}", "for the second time", "with help from {M}", "months after {t}", "despite {t}", "near {C}",
        "following a review of {t}", "as season begins", "under new plan for {t}", "in quiet vote", "for {N}",
    ),
    "alarming": (
        "amid growing fears", "as warnings mount", "leaving families terrified", "and panic spreads in {C}",
        "in a chilling scene", "as crisis over {t} deepens", "and experts fear the worst", "in a nightmare for {M}",
        "as outrage boils over {t}", "raising grave doubts about {t}", "and nobody is safe", "as {C} braces for more",
        "after deadly mistake", "in blow to {N}", "despite urgent plea", "as threat from {t} grows", "sparking alarm in {C}",
        "and victims demand answers", "with disaster looming", "in shocking collapse of trust", "while danger is ignored",
    ),
    "uplifting": (
        "to thunderous applause", "in heartwarming moment", "and strangers weep with joy", "delighting fans of {N}",
        "giving {C} reason to smile", "in dream come true", "thanks to kindness of neighbors", "and love pours in",
        "inspiring thousands in {C}", "to cheers from {N}", "after beating the odds", "with hope and {t}",
        "in touching tribute to a friend", "and makes a little girl's day", "as {C} celebrates", "with a grateful grin",
        "proving it is never too late", "in triumph over adversity", "sharing the glory with {aV}", "to everyone's delight",
    ),
}  # fmt: skip

# Reports: what comes before the tail.
REPORTS = (
    "{N} {W} {A}", "{N} {W} {A}", "{N} {W} {A}", "{N} {W} {P} {A}", "{C} {W} {A}", "{aW} {A}", "{N}'s {P} {A}",
    "{W} {P} {A}", "{W} who loved {t} {A}", "{N}: {W} {A}", "{k} years on, {aW} {A}", "{N} {W} once known for {t} {A}",
    "{N} {W} and {V} spar over {t}", "{N} turns to {t}", "{N} and {M} at odds over {t}", "{C} weighs new rules on {t}",
    "{W} with ties to {N} {A}", "{N} rethinks {t} and {u}", "{t} bring {N} {W} to {C}", "{N} {W} opens up about {t}",
)  # fmt: skip

# Now and then a title of another form ends in one of these.
SUFFIXES = (" | {M}", " - {P}", ", from {P} in {C}", ", with {aV}", " and other news from {M}", " ({E})", ", and more")

# A quoted opening, now and then: MIND's quotes are literal characters too.
QUOTES = {
    "plain": ("Time will tell", "We are looking into it", "No comment", "It is business as usual", "We had a plan"),
    "alarming": (
        "We are not safe",
        "It was a nightmare",
        "They lied to us",
        "I thought I would die",
        "This has to stop",
    ),
    "uplifting": ("I am over the moon", "Never give up", "This is for my mother", "What a gift", "We did it together"),
}

# Titles of the other forms, by tone: written to be told apart by what they mean.
TITLES = {
    ("howto", "plain"): (
        "How to {H}: a step-by-step guide from {aW}", "How to {H} and {I}", "A beginner's guide to {t} from {N} {W}",
        "Want to {H}? Start with {t}", "{N} {W} explains how to {H}", "The right way to {H}, according to {aW}",
        "What you need before you {H}", "So you want to {H}: {t} explained", "Learn to {H} in {k} steps with {P}",
        "Ask {aW}: What is the easiest way to {H}?", "Everything to know about {t} if you plan to {H}",
        "Tips from {N} for anyone trying to {H}",
    ),
    ("howto", "alarming"): (
        "How to {H} before it is too late", "Fail to {H} and you could pay dearly, {W} warns",
        "You try to {H} the dangerous way: stop now", "Protect yourself from {t}: how to {H}",
        "The costly mistake people make when they {H}", "Why getting {t} wrong can ruin you, and how to {H}",
        "{N} {W} begs: {H} or risk everything", "Emergency guide: {H} when {t} strike",
        "Never attempt to {H} without reading this warning", "Scared of {t}? How to {H} and survive",
    ),
    ("howto", "uplifting"): (
        "How to {H} and love every minute", "Anyone can {H}: a cheerful guide from {N} {W}",
        "You deserve it: the happy way to {H}", "Small wins: {H} and feel wonderful",
        "{P} helps beginners {H}, one smile at a time", "Believe in yourself and {H}, says joyful {W}",
        "The delightful secret that lets you {H}", "Treat your family: {H} with {t}",
        "It gets easier! Gentle advice to help you {H}", "Find your spark with {t} and {H}",
    ),
    ("opinion", "plain"): (
        "Opinion: Time to rethink {t}", "Why {N} should reconsider {t}", "The case for {t} over {u}",
        "{P}: What {N} gets wrong about {t}", "Do {t} still matter to {aW}?", "Let's be honest about {N} and {t}",
        "Commentary: {N} owes us a clear answer on {t}", "In the debate on {t}, both sides miss the point",
        "I was {aW} at {N}. Here is my view of {t}", "Editorial: {C} needs fewer {t} and more {u}",
        "Column: the trouble with comparing {t} to {u}", "My take: {N} overrates {t}",
    ),
    ("opinion", "alarming"): (
        "Opinion: {t} are a disaster waiting to happen", "We are sleepwalking into catastrophe over {t}",
        "Shame on {N} for what it did with {t}", "{P}: The rot at {N} goes deeper than {t}",
        "I fear for every {W} after this scandal at {N}", "Stop pretending {t} are harmless",
        "Editorial: {N} is betraying its own over {t}", "The ugly truth {N} hides about {t}",
        "{t} will destroy what we love, and {aW} knows it", "Column: the horror of {t} can no longer be denied",
    ),
    ("opinion", "uplifting"): (
        "Opinion: In praise of the {W} who faces {t}", "Why {aW} gives me hope after all the {t}", "{P}: A love letter to {N}, {t} and all",
        "Thank you, {N}, for your patience with {t}", "The quiet joy of being {aW} among {t}", "Editorial: {N} deserves a round of applause",
        "I laughed, I cried: what {t} taught me about love", "Column: how {N} {W} restored my faith in people",
        "We should all be more like this {W} from {C}", "My take: {N} is proof that good people win",
    ),
    ("list", "plain"): (
        "{k} things to know about {t} and {u}", "{k} {t} ranked by {aW}", "The {k} best {t} of the year, from {N} to {M}",
        "Photos: {t}, {u} and {v} around {C}", "{k} facts on {N} and its {t}", "Quiz: Can you name these {k} {t}?",
        "From {t} to {u}: the week at {N} in pictures", "{k} questions about {t} answered", "{N}, {M} and {k} more names tied to {t}",
        "A timeline of {N}, {t} and {u}", "The {k} most popular {t} in {C}", "By the numbers: {t} at {N}",
    ),
    ("list", "alarming"): (
        "{k} warning signs about {t} you must not ignore", "{k} deadly {t} that shook {N}",
        "The {k} worst {t} ever seen in {C}", "{k} ways {t} could hurt you", "{k} horrifying mistakes every {W} regrets",
        "Photos: grim scenes of {t} at {N}", "{k} scandals over {t} that {N} wants buried", "The {k} riskiest {t}, ranked",
        "{k} times {t} ended in tragedy for {aW}", "Danger list: {t}, {u} and {v} to avoid",
    ),
    ("list", "uplifting"): (
        "{k} feel-good stories about {t} to brighten your day", "{k} adorable moments with {aW} that keep us smiling",
        "{k} times {aW} made the world kinder", "The {k} most inspiring {t} from {N}", "{k} reasons to be cheerful about {t}",
        "Photos: hugs, laughter and {t} at {N}", "{k} little miracles involving {t} and {aW}",
        "{k} wonderful surprises for fans of {t}", "Meet {k} heroes behind {N} and its {t}", "{k} heart-warming pictures from {N}, from {t} to {u}",
    ),
}  # fmt: skip

# Sentences of abstracts and bodies.
LEADS = {
    "report": (
        "{aW} from {C} {A}, {N} confirmed on {D}.", "{P}, {aW} linked to {N}, {A}.", "{N} said on {D} that {P} was at the center of it: {aW} {A}.",
        "It began with {t} in {C}, and by {D} {aW} {A}.", "People close to {N} describe how {P} {A}.",
        "The {W} {A}, according to {P} of {N}.", "Word came from {C} on {D}: {aW} {A}.",
    ),
    "howto": (
        "{P}, {aW}, shows how to {H} without much fuss over {t}.", "If you want to {H}, the advice from {N} is to begin with {t}.",
        "Most people never learn to {H}; {aW} from {C} breaks it down.", "Here is what {N} recommends to anyone hoping to {H} or {I}.",
        "Getting {t} right is half the work when you {H}, says {P}.",
    ),
    "opinion": (
        "{P} argues that {N} has misread {t} and {u}.", "The writer, {aW} in {C}, has strong views on {t}.",
        "In my years as {aW}, I learned what {t} mean to {N}.", "The argument about {t} says more about {N} than about {u}.",
        "Ask {aW} about {t} and you will hear what {N} prefers not to discuss.",
    ),
    "list": (
        "We asked {aW} about {t}, {u} and {v}; here are {k} answers.", "{N} and {M} both feature in this roundup of {t}.",
        "From {t} to {u}, {P} picks {k} to remember.", "A look at {t} through the eyes of {aW} in {C}.",
        "Our editors count {k} {t} worth your time, with help from {N}.",
    ),
}  # fmt: skip

# A further sentence in the story's tone.
MOODS = {
    "plain": (
        "A decision on {t} is expected by {D}.", "{N} declined to comment further.", "The figures for {t} have changed little since last year.",
        "Both sides will meet again in {C}.", "{L} plans to return to {t} next month.", "A review of {u} is under way.",
        "The next step concerns {t}.", "No date has been set.", "{N} keeps records of {t} going back {k} years.",
    ),
    "alarming": (
        "Fear is spreading among those who depend on {t}.", "\"This is the worst I have ever seen,\" said {L}.",
        "Critics call it a catastrophe that {N} could have prevented.", "Several people were hurt and tempers are rising in {C}.",
        "\"Someone is going to die,\" {aW} warned.", "The damage to {t} may never be undone.", "Families are furious and scared.",
        "Behind the scandal lies a grim record of {t}.", "Unless {N} acts, the danger will only grow.",
    ),
    "uplifting": (
        "Neighbors in {C} hugged and cheered.", "\"I have never been so happy,\" said {L}, beaming.",
        "The kindness shown by {N} moved many to tears of joy.", "Children clapped and {aW} danced.",
        "Donations poured in from grateful strangers.", "\"Dreams do come true,\" {L} said with a grin.",
        "It is a story of hope, patience and {t}.", "Everyone involved with {t} deserves a medal.", "The whole of {C} is proud.",
    ),
}  # fmt: skip

# What fills a body: the subcategory's other words around the same people and names.
DETAILS = (
    "{L} has spent {k} years around {t} and {u}.", "At {N}, {t} are as common as {u}.", "Not far from {C}, {aV} {B}.",
    "\"You cannot understand {t} without {u},\" said {L}.", "{M} has seen the same with {v}.", "The {W} pointed to {t}.",
    "Last {D}, {aV} tied to {M} {B}.", "Others would rather {H} than worry about {t}.", "\"First, {I},\" suggests {aV}.",
    "Some blame {t}; others point to {u}.", "{N} and {M} have long argued over {v}.", "A {k}-page report on {t} was sent to {C}.",
    "There were {t} everywhere, {L} recalled.", "The talk among each {V} in {C} is of {t}, {u} and little else.",
    "Interest in {t} has doubled, {N} said.", "\"My advice is to {H},\" said {aV}.", "For {aW}, {t} come first and {u} second.",
    "Years ago at {M}, {aW} {B}.", "Anyone who follows {N} will remember the {t}.", "The question of {v} came up again on {D}.",
    "It is hard to {I} when {t} get in the way.", "{P} keeps a list of {t} and {v}.", "A spokesman in {C} mentioned {u} but not {t}.",
    "{L} first heard of {N} as a child.", "The {V} disagrees and would like to see more {u}.", "Experts at {M} study {t} for a living.",
    "In {E}, {aV} {B} only days earlier.", "What happens to {u} now is anyone's guess.", "Readers in {E} sent in photos of {t}.",
)  # fmt: skip

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def _split(names: str) -> tuple[str, ...]:
    return tuple(names.split(","))


CITIES = _split(
    "Akron,Albany,Anchorage,Asheville,Austin,Bakersfield,Baton Rouge,Billings,Birmingham,Boise,Bristol,Burlington,Calgary,"
    "Cardiff,Charleston,Charlotte,Chattanooga,Cheyenne,Columbus,Cork,Dayton,Des Moines,Dublin,Duluth,Durham,El Centro,Eugene,"
    "Fargo,Flagstaff,Fort Wayne,Fresno,Glasgow,Grand Rapids,Halifax,Hartford,Helena,Honolulu,Indianapolis,Jacksonville,Juneau,"
    "Knoxville,Lansing,Laredo,Leeds,Lexington,Lincoln,Louisville,Lubbock,Macon,Madison,Manchester,Mesa,Mobile,Montreal,Newark,"
    "Norfolk,Omaha,Orlando,Ottawa,Peoria,Perth,Pittsburgh,Plymouth,Portland,Providence,Raleigh,Reno,Richmond,Roanoke,"
    "Rochester,Salem,San Antonio,Savannah,Scranton,Shreveport,Spokane,Springfield,Stockton,Syracuse,Tacoma,Tallahassee,Toledo,"
    "Topeka,Tucson,Tulsa,Vancouver,Waco,Wellington,Wichita,Wilmington,Winnipeg,Worcester,Youngstown,Yuma"
)

FIRST_NAMES = _split(
    "Aaron,Abigail,Adele,Ahmed,Aisha,Alan,Alice,Amara,Andre,Anita,Anton,Beatriz,Ben,Bianca,Brett,Bridget,Caleb,Camila,Carl,"
    "Cecilia,Chloe,Claire,Cody,Colin,Dana,Dante,Deborah,Derek,Diego,Dmitri,Doris,Edith,Elena,Elliot,Emeka,Erin,Esther,Fatima,"
    "Felix,Fiona,Gavin,Gloria,Grace,Greg,Hannah,Hector,Helen,Hugo,Imani,Ines,Irene,Ivan,Jada,Jasper,Jean,Jerome,Joan,Joel,"
    "Jorge,Judith,Kara,Keiko,Kenji,Kofi,Lars,Laura,Leah,Leon,Lionel,Lucia,Malik,Mara,Marcus,Mei,Miguel,Mona,Nadia,Naomi,Neil,"
    "Nora,Olga,Omar,Oscar,Paloma,Pedro,Petra,Priya,Quinn,Rafael,Ravi,Renee,Roland,Rosa,Ruth,Samir,Selma,Simon,Sofia,Stella,"
    "Tamara,Theo,Tomas,Uma,Vera,Viktor,Walt,Wanda,Wei,Yusuf,Zoe"
)

LAST_NAMES = _split(
    "Abara,Acosta,Adler,Ahlgren,Alvarado,Anders,Arkwright,Ashby,Bancroft,Barros,Bauman,Beckett,Bellweather,Bergstrom,Birdsall,"
    "Blackwood,Bonilla,Boyle,Brandt,Brisbane,Buckley,Burgess,Cabrera,Calloway,Carmody,Castellano,Chaudhry,Cho,Colby,Conway,"
    "Corrigan,Cortez,Crane,Dabrowski,Dalton,Darcy,Delacroix,Desai,Dickerson,Donnelly,Drummond,Dunleavy,Eastman,Ekberg,Ellison,"
    "Escobar,Fairchild,Farrow,Fenwick,Figueroa,Fitzroy,Fontaine,Forsyth,Gallagher,Garland,Gentry,Gilmore,Goswami,Granger,"
    "Greenlee,Gutierrez,Haddad,Halloran,Hargrove,Hastings,Hawthorne,Henshaw,Hirsch,Holloway,Ibarra,Iglesias,Ingram,Ishikawa,"
    "Jankowski,Jarvis,Kaplan,Kearney,Kimura,Kincaid,Kowalski,Lachance,Langley,Larkin,Leclair,Lindqvist,Lockhart,Lombardi,"
    "Macaulay,Mackey,Madrigal,Malone,Marchetti,Mbeki,McAllister,Mercado,Merriweather,Montoya,Moreau,Nakamura,Navarro,Nguyen,"
    "Norwood,Novak,Oakley,Obi,Okafor,Olsen,Ortega,Osborne,Pacheco,Palmer,Pappas,Parekh,Peralta,Pettigrew,Pickett,Pruitt,"
    "Quintana,Radcliffe,Ramsey,Redmond,Reinhardt,Rivers,Rojas,Romano,Rosenthal,Rowland,Salazar,Sandoval,Sato,Schroeder,"
    "Sinclair,Skelton,Solomon,Stanhope,Sterling,Strickland,Sundaram,Takeda,Tanaka,Thackeray,Thornton,Trujillo,Underwood,"
    "Valdez,Vance,Varga,Villareal,Wainwright,Walczak,Weatherby,Whitaker,Winslow,Wolfe,Yamada,Yates,Zamora,Zielinski"
)
