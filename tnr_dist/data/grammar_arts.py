"""Vocabulary of arts and sciences: science, films, television, music, games, animals, books; `grammar.read_tables` explains the format."""

TABLE = """\
science/space
who: astronaut, rocket engineer, astronomer, flight director, planetary scientist, cosmonaut
names: NASA, SpaceX, International Space Station, Mars, Hubble, Blue Origin, Jupiter, Voyager 2, Cape Canaveral,
Saturn, Moon, European Space Agency
things: asteroids, spacewalks, orbits, rockets, black holes, galaxies, satellites, exoplanets, lunar landers, meteor
showers, telescopes, supernovas, rovers, comets
acts: completes the first all-female spacewalk, returns to Earth after 340 days, photographs a black hole, !aborts a
launch, finds water on a distant world, !loses contact with a lander, discovers 20 new moons, tests an escape capsule
how: watch a meteor shower, spot Mercury, photograph the Milky Way, train for zero gravity, build a model rocket, buy
a first telescope

science/paleontology
who: fossil hunter, paleontologist, dinosaur expert, museum preparator, quarry worker, bone auctioneer
names: Montana, Tyrannosaurus rex, Smithsonian, Field Museum, Siberia, Patagonia, Triceratops, Hell Creek, Jurassic
Coast, Mongolia, La Brea, Stegosaurus
things: fossils, dinosaurs, mammoths, amber pieces, footprints, skulls, mass extinctions, raptors, claws, trilobites,
saber-toothed cats, skeletons, eggshells, ancient birds
acts: unearths a 66-million-year-old femur, names a new horned species, !trips over a mastodon tusk, assembles a
122-foot giant, thaws an Ice Age puppy, dates the killer asteroid, scans a hatchling inside its shell, auctions a bone
collection
how: identify a fossil, dig without damage, clean a bone, visit a tar pit, read rock layers, tell a raptor from a rex

science/archaeology
who: archaeologist, Egyptologist, metal detectorist, underwater explorer, cave researcher, art restorer
names: Egypt, Pompeii, Stonehenge, Machu Picchu, Tutankhamun, Luxor, Maya, Rosetta Stone, British Museum, Petra,
Vikings, Notre Dame
things: mummies, tombs, shipwrecks, pyramids, coffins, hieroglyphs, gold coins, ruins, amphoras, cave paintings,
temples, artifacts, burial mounds, mosaics
acts: opens 30 sealed coffins, finds a lost Roman town, !uncovers a Bronze Age hoard, deciphers a scroll, dives to a
sunken galleon, !loots a grave, returns stolen statues, maps a jungle city with lasers
how: read hieroglyphs, join a dig, date a potsherd, report a treasure find, visit the Valley of the Kings, preserve an
old manuscript

science/climate
who: climate scientist, glaciologist, teenage activist, carbon accountant, polar explorer, forest ecologist
names: Fridays for Future, Paris Agreement, Greenland, Antarctica, Amazon, IPCC, Great Barrier Reef, Extinction
Rebellion, Maldives, Kyoto, Arctic, Greenpeace
things: glaciers, emissions, rising seas, carbon taxes, greenhouse gases, ice sheets, fossil fuels, tree plantings,
heat records, bleached corals, methane leaks, tipping points, climate marches, permafrosts
acts: sails the Atlantic to a summit, !holds a funeral for a glacier, !quits the global accord, plants 350 million
trees, glues herself to a train, !declares an emergency with 11000 colleagues, !measures record melt, divests from
coal
how: shrink a carbon footprint, talk to skeptics, offset a flight, plant trees that last, live with less plastic, cope
with eco-anxiety

science/genetics
who: geneticist, biochemist, DNA sleuth, cloning pioneer, Nobel laureate, lab technician
names: CRISPR, 23andMe, Broad Institute, Ancestry, Human Genome Project, Nobel Prize, Shenzhen, Dolly, Neanderthal,
Cambridge, Salk, Sanger
things: genes, stem cells, mutations, chromosomes, enzymes, genomes, proteins, test kits, inherited disorders,
hybrids, fruit flies, sequencers, clones, bacteria
acts: edits human embryos, cures a boy's sickle cell, !learns her father is a stranger, !resurrects an extinct frog,
grows a mini brain, sequences a wheat plant, traces ancestry to a cave, shares the medicine prize
how: read a DNA report, extract DNA from strawberries, find birth relatives, protect genetic privacy, understand gene
editing, study heredity in peas

science/physics
who: particle physicist, mathematician, materials scientist, cosmologist, laser engineer, volcanologist
names: CERN, Higgs, Einstein, Large Hadron Collider, Fermilab, LIGO, Princeton, Newton, Caltech, ITER, Kilauea, Max
Planck
things: neutrinos, gravitational waves, quarks, equations, lasers, magnets, superconductors, earthquakes, volcanoes,
dark matter theories, atomic clocks, photons, vacuum chambers, fusion reactors
acts: solves a 64-year-old number puzzle, weighs the ghost particle, !hears two dead stars collide, cools atoms to
near absolute zero, !questions the expansion of the universe, proves a conjecture, predicts an eruption, makes
diamond-hard glass
how: grasp relativity, do mental arithmetic, explain gravity to a child, measure the speed of light, think about
infinity, build a cloud chamber

science/ocean
who: marine biologist, deep-sea explorer, oceanographer, whale researcher, submersible pilot, reef diver
names: Mariana Trench, Woods Hole, Galapagos, Monterey Bay, Bermuda, Pacific, Scripps, Loch Ness, Sargasso Sea,
Hawaii, Antarctica, Titanic
things: whales, octopuses, plankton blooms, squid, anglerfish, dolphins, sea turtles, hydrothermal vents, kelp
forests, currents, seabeds, sharks, garbage patches, submarines
acts: dives to the deepest point, films a giant squid, !tags a great white, frees a humpback from nets, spots a
ghostly octopus, !blames a lagoon die-off on algae, !counts 200 stranded pilot whales, hears a mysterious song
how: swim with dolphins, watch whales from shore, help sea turtles, dive a wreck, clean up a coast, keep a saltwater
tank

movies/superheroes
who: film director, comic book writer, leading man, stunt double, action heroine, visual effects supervisor
names: Marvel, Avengers, Batman, Joker, Wonder Woman, Spider-Man, Disney, Black Panther, Captain Marvel, Star Wars,
Gotham City, Superman
things: villains, sequels, origin stories, capes, trailers, box office records, cameos, blockbusters, crossovers,
franchises, lightsabers, reboots, post-credit scenes, sidekicks
acts: passes $1 billion worldwide, calls caped films not cinema, recasts the web-slinger, hangs up the cowl, !leaks
the finale, joins the multiverse, trains six months for a shirtless scene, walks off the set
how: watch the saga in order, make a cosplay suit, avoid spoilers, draw a comic panel, break into stunts, catch every
Easter egg

movies/horror
who: scream queen, horror director, zombie extra, haunted house owner, slasher icon, special effects makeup artist
names: Elm Street, Halloween, It Chapter Two, Dracula, The Shining, Freddy Krueger, Universal Studios, The Exorcist,
Blumhouse, Alfred Hitchcock, Pennywise, Salem
things: jump scares, vampires, zombies, monsters, haunted houses, ghosts, chainsaws, exorcisms, clowns, fangs,
possessed dolls, slashers, werewolves, nightmares
acts: !makes viewers faint, returns to the Overlook Hotel, !bites into a cult classic, shoots in a real asylum, dons
the hockey mask again, !bans a bloody poster, films a found-footage hit for $9000, !terrifies a test audience
how: host a fright night, make fake blood, sit through a scary film, carve a jack-o'-lantern, survive a zombie
apocalypse, visit filming locations of chillers

movies/animation
who: animator, voice actor, Pixar director, puppeteer, storyboard artist, anime fan
names: Pixar, Frozen II, Disney, Studio Ghibli, Toy Story 4, DreamWorks, Lion King, Sonic the Hedgehog, Aladdin, Bugs
Bunny, Shrek, Spongebob
things: cartoons, princesses, sidekick snowmen, anime series, musical numbers, fairy tales, talking animals,
stop-motion sets, sketches, remakes, family films, storyboards, plush toys, sing-alongs
acts: redesigns a hedgehog after outcry, voices a snowman again, draws 60000 frames by hand, breaks the Thanksgiving
record, remakes a beloved fairy tale, !loses footage in a studio blaze, makes parents weep, hides a lamp in every film
how: draw a cartoon, pick films for a toddler, do funny voices, make a flip book, stream old cartoons, throw a
princess party

movies/awards
who: best actress nominee, screenwriter, costume designer, film critic, Oscar host, indie producer
names: Academy Awards, Golden Globes, Cannes, Sundance, Venice Film Festival, Parasite, Toronto Film Festival, BAFTA,
Netflix, Little Women, Hollywood Foreign Press, Dolby Theatre
things: nominations, red carpets, acceptance speeches, snubs, statuettes, screenings, standing ovations, envelopes,
biopics, gowns, period dramas, film festivals, subtitles, comebacks
acts: wins the Palme d'Or, leads with ten nods, !is snubbed again, thanks her mother through tears, !reads the wrong
winner, gains 60 pounds for a role, premieres a three-hour epic, declines to host
how: win an Oscar pool, throw a viewing party, see every nominee, write a screenplay, get into festivals, dress for a
premiere

tv/drama
who: showrunner, lead actress, soap star, binge-watcher, series creator, guest star
names: Game of Thrones, HBO, The Crown, Netflix, Downton Abbey, Breaking Bad, Grey's Anatomy, The Mandalorian, Law &
Order, Stranger Things, Apple TV+, Outlander
things: season finales, cliffhangers, spinoffs, plot twists, pilots, prequels, reruns, streaming services, cast
changes, showdowns, recaps, period costumes, flashbacks, cancellations
acts: !kills off a fan favorite, gets renewed for three seasons, casts a new queen, leaves after 15 years, !scraps a
prequel, leaves a coffee cup in the shot, !ends with a whimper, breaks the streaming record
how: cut the cord, catch up before the finale, share a login, pick what to binge, dodge spoilers, land a walk-on part

tv/reality
who: contestant, bachelorette, game show host, talent judge, Survivor castaway, dance partner
names: The Bachelor, Dancing with the Stars, Jeopardy, American Idol, The Voice, Love Island, Survivor, Wheel of
Fortune, Real Housewives, Shark Tank, Big Brother, Top Chef
things: eliminations, roses, auditions, ballroom routines, winning streaks, immunity idols, feuds, daily doubles,
cooking contests, hot seats, makeovers, prize pots, tribal councils, sing-offs
acts: wins $2.4 million in trivia, !gets voted off, !picks the wrong suitor, !chokes on the final question, weeps over
a golden ticket, !throws wine at a castmate, waltzes to a perfect 30, !confesses an affair at the reunion
how: audition for a game show, win at trivia, spot fake drama, pitch investors, learn the foxtrot, handle elimination

tv/comedy
who: stand-up comedian, late-night host, sitcom star, sketch writer, impressionist, podcast host
names: Saturday Night Live, Tonight Show, Friends, The Office, Late Show, Second City, Parks and Recreation, Comedy
Cellar, The Simpsons, Comedy Central, Schitt's Creek, Daily Show
things: punchlines, monologues, skits, sitcoms, catchphrases, roasts, laugh tracks, impressions, one-liners, parodies,
reunions, pranks, open mics, hecklers
acts: jokes through a power cut, teases a reunion with old castmates, !gets fired over slurs, silences a heckler,
!cracks up mid-sketch, plays twelve characters, wins the Mark Twain Prize, !cancels a tour after backlash
how: tell a joke, write a sitcom, handle hecklers, do an impression, survive open mic, find funny podcasts

music/country
who: country singer, fiddle player, songwriter, banjo picker, honky-tonk owner, bluegrass band leader
names: Nashville, Dollywood, Grand Ole Opry, Bluebird Cafe, CMA Awards, Stagecoach, Johnny Cash, Texas Hill Country,
Farm Aid, Country Music Hall of Fame, Ryman Auditorium, Muscle Shoals
things: cowboy boots, ballads, fiddles, steel guitars, heartbreak songs, rhinestones, honky-tonks, duets, pickup truck
anthems, harmonies, line dances, hoedowns, twangs, jamborees
acts: wins entertainer of the year, sings for a dying fan, busks on Broadway, !cancels shows over breathing trouble,
yodels in Walmart, buries the hatchet with a duet partner, headlines the Opry, writes a hit on a napkin
how: play the banjo, two-step, write a tearjerker, yodel, find live tunes in Tennessee, tune a fiddle

music/hiphop
who: rapper, beatmaker, DJ, hip-hop producer, record label boss, breakdancer
names: Def Jam, Death Row Records, Bad Boy Records, Atlanta, Hot 97, Roc Nation, Wu-Tang Clan, Top Dawg, Compton,
Rolling Loud, Astroworld, Tupac
things: mixtapes, verses, beats, rhymes, turntables, diss tracks, samples, bars, freestyles, gold chains, cyphers,
hooks, gospel choirs, streams
acts: drops a surprise album, !feuds over a sampled hook, !gets arrested before a gig, stages a Sunday service, buys
back master tapes, retires from the mic, freestyles for 33 hours, !serves probation
how: write a verse, scratch a record, clear a sample, freestyle, spin at a block party, start a label

music/classical
who: violinist, conductor, soprano, cellist, concert pianist, opera director
names: Metropolitan Opera, Beethoven, Carnegie Hall, Vienna Philharmonic, Mozart, Tanglewood, Juilliard, Bach, La
Scala, Salzburg Festival, Berlin Philharmonic, Steinway
things: symphonies, concertos, arias, sonatas, orchestras, violins, overtures, cadenzas, string quartets, batons,
librettos, chamber recitals, fugues, standing ovations
acts: !plays on while the lights fail, !resigns amid harassment claims, finds a lost Stradivarius, debuts at age nine,
sings Tosca at short notice, !strikes over pay at the pit, finishes an unfinished score, performs a 12-hour piano
marathon
how: listen to an opera, practice scales, dress for the philharmonic, pick a violin, read sheet music, conduct a choir

music/rock
who: guitarist, drummer, frontman, bassist, roadie, metal band singer
names: Rolling Stones, Aerosmith, Fleetwood Mac, Woodstock, Rock and Roll Hall of Fame, Metallica, Red Rocks, Foo
Fighters, Queen, Gibson, Fender, Coachella
things: guitar solos, amplifiers, riffs, reunion tours, vinyl records, mosh pits, encores, drum kits, power chords,
bootlegs, stage dives, leather pants, farewell tours, tribute bands
acts: reunites after 20 years, !smashes a Stratocaster, !cancels dates for heart valve surgery, joins the hall of
fame, plays to 200000 in the mud, crowd-surfs at 68, !sues a former bandmate, records in a cave
how: play a power chord, form a garage band, collect vinyl, soundproof a basement, restring a Stratocaster, save your
hearing

music/pop
who: pop star, boy band member, backup dancer, K-pop idol, vocal coach, teen songwriter
names: Billboard, BTS, MTV, Eurovision, Apple Music, Seoul, Grammy Awards, Madison Square Garden, Spotify, Capitol
Records, American Music Awards, Jonas Brothers
things: chart toppers, choruses, music videos, world tours, ticket sales, singles, choreographies, dance routines, fan
clubs, autotunes, breakup songs, playlists, meet-and-greets, halftime shows
acts: sweeps the music awards, !cries on stage, re-records the old albums, !breaks up the boy band, sells out Wembley
in six minutes, fires a manager, sings with a fan who has Down syndrome, tops the Hot 100
how: hit high notes, get concert tickets, make a playlist, learn a routine, write a catchy chorus, record vocals at
home

music/jazz
who: saxophonist, trumpeter, jazz singer, blues guitarist, swing band leader, double bassist
names: Miles Davis, New Orleans, Blue Note, Newport, Louis Armstrong, Preservation Hall, Duke Ellington, B.B. King,
Harlem, Village Vanguard, Ella Fitzgerald, Beale Street
things: improvisations, trumpets, saxophones, scats, blues standards, big bands, syncopations, brass bands, jam
sessions, clarinets, speakeasies, second lines, trombones, swing dances
acts: !leads a second line funeral, recovers a stolen horn, unearths lost Coltrane tapes, plays blues at 96, reopens a
Harlem nightspot, busks for hurricane relief, !loses a lip to injury, jams till dawn
how: improvise a solo, learn the sax, swing dance, start a record shelf of bebop, care for brass, hear the blues in
Memphis

games/videogames
who: gamer, esports champion, game developer, speedrunner, console designer, Fortnite streamer
names: Fortnite, Nintendo Switch, PlayStation 5, Blizzard, Call of Duty, Pokemon, Xbox, Mario Kart, Minecraft, World
of Warcraft, Zelda, Google Stadia
things: consoles, joysticks, loot boxes, boss battles, high scores, expansions, avatars, controllers, frame rates,
pixels, cheat codes, esports arenas, headsets, battle royales
acts: wins $3 million at 16, !bans a Hong Kong player, finishes in under five minutes, !blacks out the whole map,
!delays a sequel until spring, !crashes on launch day, remasters a classic, !quits college to stream
how: beat the final boss, build a gaming rig, level up fast, limit kids' play, catch rare Pokemon, start streaming

games/boardgames
who: puzzle maker, Dungeon Master, Scrabble champion, toy inventor, bridge player, tabletop designer
names: Monopoly, Scrabble, Dungeons & Dragons, Catan, Hasbro, Rubik's Cube, Clue, Risk, Mattel, Magic: The Gathering,
Ravensburger, Gen Con
things: dice, jigsaws, crosswords, card decks, game nights, tiles, miniatures, rulebooks, dominoes, trading cards,
meeples, sudokus, trivia quizzes, spinners
acts: plays a 365-point word, finishes a 51300-piece jigsaw, sells a Black Lotus for $166000, invents a socialist
edition, !cheats at backgammon, runs one campaign for 37 years, topples 250000 tiles, opens a cafe for players
how: host a family night, win with two-letter words, roll a first character, solve the cube, paint miniatures, finish
a Saturday crossword

games/chess
who: grandmaster, chess prodigy, blindfold player, endgame theorist, world champion, tournament arbiter
names: Oslo, FIDE, Reykjavik, Sinquefield Cup, Philadelphia, Deep Blue, St. Louis Chess Club, Candidates Tournament,
Stockfish, Washington Square Park, Norway Chess, Budapest
things: checkmates, gambits, openings, pawns, stalemates, bishops, rooks, blunders, time controls, blitz rounds,
castlings, ratings, simuls, queens
acts: draws in 136 moves, !gets caught with a phone in the toilet, beats an engine, becomes a master at 12, sacrifices
the queen, !resigns on move 19, plays 48 boards blindfolded, goes unbeaten in 100 games
how: master the Sicilian, avoid blunders, win an endgame, teach a child the moves, set a trap, read notation

games/gambling
who: poker pro, lottery winner, casino dealer, bookmaker, slot machine player, card counter
names: Powerball, Caesars Palace, World Series of Poker, Mega Millions, Atlantic City, DraftKings, MGM Grand, Monte
Carlo, Bellagio, Macau, FanDuel, Borgata
things: jackpots, royal flushes, blackjack tables, scratch-offs, roulette wheels, bluffs, betting odds, chips,
parlays, wagers, slot machines, all-ins, raffles, poker faces
acts: wins $768 million on one ticket, !loses the house on a river card, throws out a winning stub, beats the odds
twice, bets $11 million on one team, bluffs with seven-deuce, donates the jackpot, !cheats at baccarat
how: count cards, quit betting, claim a prize, bluff, read odds, set a limit in Vegas

animals/dogs
who: dog trainer, golden retriever, shelter puppy, police K-9, beagle, groomer
names: Westminster, American Kennel Club, ASPCA, Labrador, Pit Bull, Purina, Dachshund, Chewy, Poodle, Humane Society,
Conan, German Shepherd
things: puppies, leashes, barks, belly rubs, chew toys, kennels, treats, rescue mutts, fetches, wagging tails,
collars, bones, dog parks, fleas
acts: waits at the station every day, sniffs out 80 pounds of cocaine, wins best in show, drags a boy from a pond,
!bites a mail carrier, survives a 40-foot fall, comforts orphans, !runs away 300 miles from home
how: stop a puppy from chewing, house-train, teach a recall, adopt from a shelter, brush a double coat, read your
dog's body language

animals/cats
who: tabby, kitten, cat lady, feline behaviorist, Siamese, stray tomcat
names: Grumpy Cat, Maine Coon, Friskies, Persian, Larry the Cat, Garfield, Sphynx, Meow Mix, Cat Fanciers, Downing
Street, Bengal, Russian Blue
things: whiskers, litter boxes, hairballs, purrs, scratching posts, paws, catnips, meows, feral colonies, laser
pointers, cardboard boxes, claws, nine lives, cat cafes
acts: turns up after 11 years, !steals underwear from the block, !gets stuck up a pole, adopts orphaned squirrels,
!storms the field at a ballgame, is declared mayor, survives the washing machine, ignores a mouse
how: stop scratching the couch, introduce two kittens, clip claws, calm a hissing stray, decode a meow, pick a litter

animals/birds
who: birdwatcher, falconer, ornithologist, parrot, penguin keeper, duck rescuer
names: Audubon Society, Cornell Lab, Central Park, Bald Eagle, Puffin Island, Snowy Owl, African Grey, Cape May,
Mandarin Duck, California Condor, Kiwi, Thanksgiving Turkey
things: feathers, nests, migrations, songbirds, beaks, owls, feeders, hummingbirds, eagles, wingspans, flamingos,
chicks, binoculars, pigeons
acts: flies nonstop for 7500 miles, calls 911 by mimicry, !counts three billion lost since 1970, hatches two eaglets,
nests on a traffic light, gets a prosthetic bill, !attacks joggers, shows up 5000 miles off course
how: attract hummingbirds, identify a warbler, save a fallen fledgling, build a nest box, keep chickens, stop window
strikes

animals/wildlife
who: zookeeper, elephant, wildlife photographer, poacher, grizzly, conservationist
names: San Diego Zoo, Serengeti, Kenya, World Wildlife Fund, Madagascar, Bronx Zoo, Panda, Sumatra, Kruger, Australia
Zoo, Yellowstone, Borneo
things: rhinos, lions, tigers, tusks, safaris, wolves, pandas, cheetahs, orangutans, raccoons, deer herds, mountain
lions, alligators, endangered species
acts: gives birth to twin cubs, wanders into a supermarket, !escapes its enclosure, !kills a trophy hunter's guide,
adopts an orphan calf, returns to the wild, !falls into a well, !charges a safari jeep
how: photograph a lion, avoid a cougar, go on safari, keep bears from trash, help hedgehogs, volunteer at a sanctuary

animals/horses
who: jockey, racehorse, equestrian, stable hand, mustang tamer, rodeo cowboy
names: Kentucky Derby, Santa Anita, Breeders' Cup, Churchill Downs, Secretariat, Lipizzaner, Clydesdales, Ascot,
Calgary Stampede, Belmont, Appaloosa, Grand National
things: saddles, foals, gallops, stables, hooves, thoroughbreds, bridles, jumps, ponies, stallions, barrel races,
reins, wild mustangs, carriage rides
acts: wins the Triple Crown, !breaks down on the dirt track, !bucks off a champion, rides a Shetland around the world,
!is disqualified for interference, jumps 7 feet clear, rescues 40 starved ponies, retires to stud
how: saddle up, muck out a stall, bet a trifecta, groom a mane, ride bareback, calm a spooked pony

animals/insects
who: beekeeper, entomologist, butterfly breeder, exterminator, spider expert, cricket farmer
names: Monarch, Asian Hornet, Madagascar, Orkin, Tarantula, Atlas Beetle, Bayer, London Natural History Museum, Luna
Moth, Brood X, Black Widow, Sahara Silver
things: ants, beehives, cockroaches, mosquitoes, butterflies, termites, wasps, honeycombs, fireflies, ladybugs,
bedbugs, moths, pollinators, caterpillars
acts: clocks the world's fastest ant, removes 40000 bees from a ceiling, !loses half the hives in winter, eats grubs
on air, !gets stung 200 times, !finds a spider in a salad, raises monarchs in a kitchen, names a beetle after a
schoolgirl
how: keep bees, get rid of ants, repel mosquitoes, plant for butterflies, check a hotel for bedbugs, eat crickets

books/novels
who: novelist, librarian, crime writer, debut author, bookshop owner, translator
names: Giller Prize, Booker Prize, Toni Morrison, Penguin, Jane Austen, Pulitzer, Oprah's Book Club, Harry Potter,
Hemingway, New York Public Library, Agatha Christie, Nobel
things: bestsellers, chapters, first editions, book clubs, paperbacks, thrillers, plots, romances, memoirs, libraries,
manuscripts, heroines, detective stories, book tours
acts: shares a literary award, publishes a sequel after 34 years, returns a book 73 years late, !burns an unfinished
manuscript, writes under a male name, outsells the president, !admits inventing a memoir, saves the last store in town
how: finish a first draft, start a reading club, get published, read 100 titles a year, find a rare first edition,
name a character

books/poetry
who: poet laureate, slam champion, playwright, cartoonist, spoken word artist, Shakespeare scholar
names: Shakespeare, Broadway, Emily Dickinson, Globe Theatre, Hamilton, Maya Angelou, Royal Court, Peanuts, West End,
Tony Awards, Walt Whitman, Edinburgh Fringe
things: sonnets, stanzas, haiku, verses, plays, curtain calls, soliloquies, comic strips, understudies, limericks,
matinees, metaphors, rehearsals, stage lights
acts: recites for the inauguration, closes after 13000 shows, !forgets the lines on opening night, turns grief into
verse, draws a strip for 50 years, casts a female Hamlet, finds a lost folio, adapts a hit film for the stage
how: write a haiku, get cheap seats, memorize lines, overcome stage fright, enjoy the Bard, publish a chapbook
"""
