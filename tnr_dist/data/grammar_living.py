"""Vocabulary of daily living: health, food and drink, lifestyle, home and garden, travel; `grammar.read_tables` explains the format."""

TABLE = """\
health/vaccines
who: pediatrician, epidemiologist, school nurse, immunologist, flu patient, public health officer
names: CDC, World Health Organization, Samoa, Merck, Ebola, Gates Foundation, Rockland County, GlaxoSmithKline, Congo,
Johns Hopkins, Zika, Philippines
things: measles outbreaks, flu shots, booster doses, polio cases, antibodies, whooping coughs, exemptions,
quarantines, HPV jabs, mosquito bites, epidemics, infections, immunizations, anti-vaxxers
acts: !declares a public emergency, rolls out a malaria jab, !traces the contacts of a sick traveler, !sees the worst
influenza season in years, ends religious exemptions, contains the virus, wipes out a strain, !loses an infant to
pertussis
how: dodge the flu, read a vaccination schedule, wash hands properly, calm a needle-shy toddler, travel safely in
malaria zones, tell a cold from influenza

health/heart
who: cardiologist, stroke survivor, transplant recipient, heart surgeon, hypertension patient, emergency physician
names: American Heart Association, Cleveland Clinic, Mayo Clinic, Framingham, Lipitor, Cedars-Sinai, Groote Schuur
Hospital, Johns Hopkins, Medtronic, Mount Sinai, Apple Watch, Texas Heart Institute
things: strokes, arteries, stents, blood clots, cholesterol levels, pacemakers, bypass surgeries, aspirins, chest
pains, defibrillators, heart attacks, palpitations, statins, blood pressure readings
acts: !suffers cardiac arrest at 32, implants a battery-free pump, !questions daily aspirin, unclogs an artery through
the wrist, gets a donor organ on Christmas Eve, finds stents no better than pills, !collapses on a treadmill, meets
the donor's mother
how: lower your cholesterol, recognize a stroke, check your pulse, eat for healthy arteries, cut salt, recover from
bypass surgery

health/cancer
who: oncologist, breast cancer survivor, leukemia patient, radiologist, hospice nurse, melanoma researcher
names: Sloan Kettering, American Cancer Society, MD Anderson, Komen Foundation, Movember, Dana-Farber, Roundup, St.
Jude, Keytruda, Livestrong, National Cancer Institute, Johnson & Johnson
things: tumors, mammograms, chemotherapies, biopsies, remissions, lymphomas, clinical trials, colonoscopies, moles,
radiation sessions, carcinogens, screenings, bone marrow transplants, wigs
acts: rings the bell after a last treatment, finds a lump in the shower, approves an immunotherapy drug, !misses a
shadow on the scan, !shaves her head in solidarity, !links talc to ovarian disease, beats stage four, detects the
disease in blood
how: check a mole, support a friend through chemo, prepare for a colonoscopy, lower your risk, cope with a diagnosis,
do a self-exam

health/mentalhealth
who: psychiatrist, therapist, suicide hotline volunteer, anxious teen, veteran with PTSD, grief counselor
names: Prozac, Samaritans, NAMI, Columbia University, Headspace, American Psychological Association, Zoloft,
Talkspace, Bell Let's Talk, Royal Foundation, Veterans Crisis Line, Freud
things: panic attacks, antidepressants, phobias, support groups, mood swings, eating disorders, breakdowns, self-harm
cases, burnouts, therapy dogs, coping skills, meditations, stigmas, bipolar episodes
acts: opens up about depression, !answers 12000 calls from people in despair, !tests ketamine for trauma, !battles
postpartum sadness, !bans physical restraint on wards, !faces a shortage of counselors, writes letters to strangers
who feel hopeless, survives a jump from a bridge
how: calm a racing mind, find a therapist, help a suicidal friend, beat seasonal blues, set boundaries, talk about
grief

health/nutrition
who: dietitian, keto dieter, nutrition scientist, vitamin maker, weight-loss champion, school lunch lady
names: Weight Watchers, Mediterranean, FDA, Harvard School of Public Health, Impossible Burger, Jenny Craig, Whole30,
Cheerios, USDA, Beyond Meat, Gatorade, Nutrisystem
things: calories, carbs, superfoods, probiotics, leafy greens, added sugars, food labels, supplements, smoothies,
whole grains, antioxidants, portion sizes, trans fats, cravings
acts: drops 120 pounds, says red meat is fine after all, ranks 35 diets, swears by intermittent fasting, !finds lead
in baby food, gives up sugar for a month, debunks celery juice, doubles the fiber in bread
how: lose belly fat, read a nutrition label, eat more fiber, curb sugar cravings, meal-prep for a week, get enough
protein

health/fitness
who: personal trainer, yoga instructor, bodybuilder, CrossFit athlete, physical therapist, gym newcomer
names: Peloton, Planet Fitness, CrossFit, Fitbit, SoulCycle, Gold's Gym, Pilates, Equinox, Venice Beach, Zumba,
Orangetheory, Lululemon
things: push-ups, squats, dumbbells, planks, treadmills, kettlebells, hamstring stretches, burpees, yoga mats, biceps,
step counts, warm-ups, abs, deadlifts
acts: does 3000 push-ups in an hour, lifts weights at 91, gets ripped in 12 weeks, !tears a rotator cuff, invents a
seven-minute workout, turns a garage into a gym, walks 10000 steps a day, lifts triple her body weight
how: do a proper squat, build muscle after 50, stretch tight hips, start yoga, tone your arms, stay motivated at the
gym

health/pregnancy
who: obstetrician, midwife, expectant mother, surrogate, fertility doctor, neonatal nurse
names: March of Dimes, Planned Parenthood, Clearblue, Lamaze, Planned Birth Center, Kaiser Permanente, La Leche
League, Utah, Texas Children's Hospital, Pampers, What to Expect, Brigham and Women's
things: ultrasounds, C-sections, contractions, miscarriages, embryos, due dates, preemies, epidurals, baby bumps, IVF
cycles, twins, doulas, breast pumps, prenatal vitamins
acts: delivers quintuplets, gives birth in a Chick-fil-A, freezes her eggs at 29, carries her own grandchild, goes
into labor on a plane, !reports rising maternal deaths, conceives after nine losses, brings home a one-pound baby
how: ease morning sickness, write a birth plan, get pregnant faster, sleep in the third trimester, breastfeed at work,
tell your boss you're expecting

health/diabetes
who: endocrinologist, type 1 teen, insulin user, foot clinic nurse, drug price campaigner, pharmacist
names: Eli Lilly, Novo Nordisk, American Diabetes Association, CVS, Dexcom, Canada, Joslin, Ozempic, Humalog, Sanofi,
JDRF, Walgreens
things: insulin pumps, blood sugar spikes, glucose monitors, finger pricks, test strips, amputations, pancreases, A1C
tests, prescriptions, sugary drinks, kidney failures, syringes, generic pills, copays
acts: !rations a $300 vial, wears an artificial pancreas, reverses the disease with diet, caps costs at $100 a month,
climbs Everest with a glucose sensor, !goes blind from high sugar, buses across the border for cheaper medicine,
transplants islet cells
how: prevent prediabetes, count carbs, pay less for insulin, care for your feet, check blood sugar, read a
prescription

health/sleep
who: sleep scientist, insomniac, night-shift nurse, snorer, mattress tester, dream researcher
names: Casper, Tempur-Pedic, Ambien, Stanford Sleep Center, National Sleep Foundation, Fitbit, Purple, Philips, Sealy,
Serta, Nytol, Calm
things: naps, nightmares, pillows, mattresses, melatonin pills, bedtimes, alarm clocks, blue-light filters, snores,
sleep apneas, weighted blankets, circadian rhythms, all-nighters, REM cycles
acts: stays awake for 11 days, !blames phones for restless nights, !sleepwalks onto a highway, naps twice a day, !ties
short nights to dementia, invents a snore-proof mask, tests 30 beds, wakes from a 19-year coma
how: fall asleep faster, quit snoring, take a power nap, choose a mattress, get over jet lag, put a toddler to bed

foodanddrink/baking
who: pastry chef, baker, home cook, cake decorator, Bake Off winner, pie shop owner
names: King Arthur Flour, Betty Crocker, Great British Bake Off, Paris, San Francisco, Pillsbury, Cornwall, Vienna,
Sara Lee, Entenmann's, Tartine, Nestle Toll House
things: sourdough loaves, cupcakes, croissants, pie crusts, brownies, cinnamon rolls, cookies, muffins, meringues,
rolling pins, frostings, eclairs, banana breads, scones
acts: bakes a 1000-layer cake, reveals a flaky crust secret, drops the wedding cake, !turns stale bread into pudding,
wins a blue ribbon for apple pie, kneads dough at 3 a.m., !recalls flour over E. coli, frosts a life-size dog
how: feed a starter, keep cookies chewy, rescue a sunken sponge, roll out dough, frost like a pro, bake without eggs

foodanddrink/grilling
who: pitmaster, butcher, backyard griller, steakhouse chef, burger flipper, hot sauce maker
names: Weber, Texas, Memphis in May, Traeger, Kansas City, Franklin Barbecue, Big Green Egg, Omaha Steaks, St. Louis,
Wagyu, Carolina, Kingsford
things: ribs, briskets, burgers, steaks, charcoals, marinades, smokers, sausages, pulled pork sandwiches, dry rubs,
chicken wings, tongs, kebabs, hot dogs
acts: smokes a brisket for 18 hours, eats 74 franks in ten minutes, flips a tomahawk over open flames, wins best
sauce, !undercooks the chicken, sears a perfect ribeye, !burns down a patio, skewers the competition
how: grill a juicy steak, smoke ribs, clean the grates, make a spicy rub, carve a turkey, tell when meat is done

foodanddrink/wine
who: sommelier, winemaker, grape grower, Champagne house owner, cellar master, wine critic
names: Napa Valley, Bordeaux, Burgundy, Tuscany, Chianti, Rioja, Mendoza, Moet, Barossa, Willamette Valley, Dom
Perignon, Chablis
things: vintages, corks, vineyards, pinot noirs, tannins, chardonnays, barrels, decanters, cabernets, roses, magnums,
harvests, tastings, blind flights
acts: uncorks an 1845 bottle, saves the harvest from smoke, !sells fake grand crus, plants vines in Wales, tastes 300
reds in a day, pays $558000 for one bottle, ages merlot under the sea, !loses 97000 gallons to a broken tank
how: pair a red with dinner, open bubbly safely, read a label, start a cellar, order from a wine list, taste like an
expert

foodanddrink/beer
who: brewer, bartender, hop farmer, distiller, whiskey maker, mixologist
names: Budweiser, Guinness, Oktoberfest, Jack Daniel's, Sierra Nevada, Bourbon Trail, Founders Brewing, Stone Brewing,
Heineken, Jim Beam, Pappy Van Winkle, White Claw
things: IPAs, lagers, cocktails, kegs, stouts, hops, martinis, pints, hard seltzers, bourbons, taprooms, margaritas,
sours, growlers
acts: brews with 3000-year-old yeast, opens a taproom in a church, !loses a whole warehouse of bourbon, pours the
perfect pint, shakes up the old-fashioned, spikes a seltzer, serves the last call, taps a Christmas ale
how: brew at home, mix a Manhattan, tell a porter from a stout, host a tasting, store a growler, cure a hangover

foodanddrink/coffee
who: barista, coffee roaster, tea grower, latte artist, cafe owner, espresso judge
names: Starbucks, Dunkin, Ethiopia, Folgers, Nespresso, Colombia, Blue Bottle, Lipton, Darjeeling, Keurig, Tim
Hortons, Lavazza
things: lattes, espresso shots, pumpkin spice drinks, tea bags, cold brews, beans, cappuccinos, mugs, refills,
caffeine jitters, grinders, matchas, to-go cups, chais
acts: unveils red holiday cups, spells every name wrong, roasts beans on a rooftop, sells a $75 cup, draws a swan in
foam, hires deaf staff, hikes the price of a macchiato, !bans paper cups
how: brew a better cup, froth milk, steep loose leaves, quit caffeine, descale a machine, grind for a French press

foodanddrink/vegetarian
who: vegan chef, plant-based blogger, tofu maker, farmers market vendor, meatless convert, mushroom forager
names: Beyond Meat, Whole Foods, Gardein, Impossible Foods, PETA, Trader Joe's, Moosewood, Sweetgreen, Meatless
Monday, Oatly, Quorn, Kerala
things: lentils, salads, veggie burgers, chickpeas, tofu scrambles, cauliflower steaks, oat milks, squashes, kale
chips, curries, eggplants, hummus bowls, jackfruit tacos, mushrooms
acts: fools meat lovers with beet patties, feeds 500 with surplus vegetables, goes vegan for a year, veganizes
Thanksgiving, !sues over a patty cooked near beef, !picks a poisonous toadstool, perfects a cashew cheese, turns
pulses into pasta
how: roast Brussels sprouts, press tofu, replace eggs, cook dried beans, love cauliflower, get iron without meat

foodanddrink/restaurants
who: restaurateur, head chef, waitress, food truck owner, dishwasher, restaurant critic
names: McDonald's, Michelin, Popeyes, Five Guys, Chick-fil-A, Olive Garden, Noma, Taco Bell, Shake Shack, Waffle
House, James Beard Foundation, Cheesecake Factory
things: tasting menus, drive-thrus, chicken sandwiches, tips, reservations, health inspections, pizzerias, sushi bars,
brunch spots, diners, dim sum carts, value meals, food halls, takeout orders
acts: earns a third star, gets a $2020 tip, !runs out of chicken sandwiches, closes after 94 years, !finds a rat in
the kitchen, opens a noodle counter, feeds first responders for free, adds bacon to everything
how: get a table, tip abroad, order sushi, eat out cheaply, send back a dish, split a check

foodanddrink/seafood
who: oyster farmer, lobsterman, sushi chef, fishmonger, crab boat captain, chowder cook
names: Maine, Red Lobster, Tsukiji, Alaska, Chesapeake Bay, Cape Cod, Long John Silver's, Bumble Bee, Galicia, Pike
Place, Nova Scotia, Gulf of Mexico
things: oysters, lobsters, crab legs, shrimp, salmon fillets, clam bakes, scallops, tuna steaks, chowders, mussels,
fish tacos, anchovies, octopus salads, cod cakes
acts: pays $1.8 million for one bluefin, shucks 40 in a minute, hauls in a blue crustacean, sells mislabeled snapper,
grills whole branzino, finds a pearl at dinner, sets aside 10000 traps, !gets sick from raw shellfish
how: shuck like a pro, cook salmon without drying it, buy sustainable fish, peel shrimp, steam mussels, fry calamari

lifestyle/fashion
who: designer, supermodel, stylist, sneaker collector, fashion editor, tailor
names: Vogue, Chanel, New York Fashion Week, Gucci, Levi's, Victoria's Secret, Milan, Zara, Louis Vuitton, Met Gala,
Adidas, Nike
things: runways, handbags, stilettos, sneakers, little black dresses, trench coats, boots, sweaters, jeans,
accessories, catwalks, vintage gowns, sequins, blazers
acts: walks the runway at 70, revives bell-bottoms, wears the same gown twice, !cancels its lingerie show, sews
couture from trash, debuts a size-inclusive line, sells sneakers for $437500, !bans fur
how: dress for winter, wear white jeans, build a capsule wardrobe, style ankle boots, shop secondhand, find jeans that
fit

lifestyle/beauty
who: makeup artist, hairstylist, dermatologist, nail technician, perfume maker, beauty vlogger
names: Sephora, Estee Lauder, Kylie Cosmetics, L'Oreal, Ulta, Fenty, Botox, Maybelline, Glossier, Dove, Clinique, Avon
things: lipsticks, mascaras, wrinkles, face masks, serums, eyebrows, bangs, sunscreens, manicures, pimples, hair dyes,
moisturizers, perfumes, shampoos
acts: swears by a $5 cream, goes gray at 30, !ends up with chemical burns, launches 40 foundation shades, chops off 20
inches of hair, !regrets lip filler, ditches the flat iron, !glues on lashes gone wrong
how: fade dark circles, apply eyeliner, treat acne, wash curly hair, age gracefully, pick a red lip shade

lifestyle/weddings
who: bride, groom, wedding planner, maid of honor, florist, father of the bride
names: Kleinfeld, Las Vegas, Vera Wang, Tiffany, David's Bridal, Lake Como, Pinterest, The Knot, Elvis Chapel, Hawaii,
Plaza Hotel, Niagara Falls
things: engagement rings, bouquets, vows, bridesmaids, honeymoons, receptions, proposals, veils, toasts, guest lists,
cakes, aisles, invitations, first dances
acts: proposes on the Jumbotron, marries in a hospital room, says yes 50 years later, !faints at the altar, elopes to
Iceland, !uninvites an aunt, !loses a diamond down the drain, dances with a father in a wheelchair
how: plan on a budget, write your vows, survive in-laws, seat the guests, give a toast, choose a ring

lifestyle/parenting
who: mother of triplets, stay-at-home dad, toddler, nanny, stepmother, adoptive father
names: Lego, Fisher-Price, Disney Junior, Graco, Playmobil, Elf on the Shelf, Sesame Workshop, Huggies, Toys for Tots,
Big Brothers, Barbie, Baby Shark
things: tantrums, diapers, strollers, bedtime stories, car seats, playdates, chores, teething rings, allowances, picky
eaters, teenagers, car pools, cribs, baby names
acts: adopts seven siblings, raps the bedtime story, !forgets a child at the rest stop, !bans sleepovers, throws a
party with no guests, teaches a son to braid hair, !recalls an infant sleeper, turns boxes into a castle
how: potty train in three days, end tantrums, raise a kind child, talk to teens, limit tablets, pick a babysitter

lifestyle/royals
who: duchess, prince, palace aide, royal biographer, queen, crown princess
names: Buckingham Palace, Commonwealth, Clarence House, Duchy of Cornwall, Holyrood, Windsor Castle, Kensington,
Sandringham, Copenhagen, Monaco, Balmoral, Althorp
things: tiaras, coronations, curtsies, royal tours, balcony waves, heirs, titles, corgis, jubilees, fascinators,
carriages, state banquets, palaces, christenings
acts: !steps back from duties, wears Diana's sapphire, !skips Christmas at Sandringham, !sues a tabloid, rides at 93,
welcomes a baby boy, breaks protocol with a hug, !gives a disastrous interview
how: curtsy, tour a castle, dress like a duchess, follow the line of succession, set a banquet table, address a
monarch

homeandgarden/gardening
who: gardener, landscaper, botanist, rose breeder, allotment holder, nursery owner
names: Kew, Miracle-Gro, Chelsea Flower Show, Burpee, Home Depot, Longwood Gardens, Sissinghurst, Master Gardeners,
Scotts, Butchart Gardens, Lowe's, Keukenhof
things: tulips, compost heaps, weeds, tomatoes, seedlings, hedges, slugs, perennials, mulches, houseplants, orchids,
raised beds, lawn mowers, succulents
acts: grows a 2000-pound pumpkin, blooms after 40 years, plants a million bulbs, !loses roses to black spot, turns a
parking lot green, digs up a time capsule, saves heirloom seeds, !battles Japanese beetles
how: prune roses, start seeds indoors, kill weeds naturally, compost leaves, revive a dying fern, overwinter geraniums

homeandgarden/interiors
who: interior designer, decorator, tiny house owner, minimalist, antique dealer, furniture maker
names: IKEA, Waco, Pottery Barn, Container Store, West Elm, Pantone, Wayfair, Architectural Digest, Farrow & Ball,
HGTV, Sherwin-Williams, Eames
things: sofas, wallpapers, kitchen islands, throw pillows, rugs, chandeliers, paint colors, bookshelves, open floor
plans, coffee tables, curtains, accent walls, closets, countertops
acts: names the color of the year, squeezes a family of five into 300 square feet, declutters 40 years of stuff, finds
a Picasso above the couch, remodels a bathroom for $500, mixes plaid with leopard, turns a silo into a loft, !regrets
the all-white kitchen
how: brighten a small room, hang pictures, pick a paint color, organize a closet, arrange a living room, fake a high
ceiling

homeandgarden/diyrepair
who: handyman, plumber, electrician, carpenter, roofer, weekend renovator
names: Lowe's, DeWalt, Bob Vila, This Old House, Black & Decker, Ace Hardware, Habitat for Humanity, Ryobi, Property
Brothers, YouTube, WD-40, Milwaukee Tool
things: leaky faucets, power drills, drywalls, clogged drains, gutters, ladders, circuit breakers, shingles, squeaky
floors, caulk guns, water heaters, hammers, decks, hardwood floors
acts: builds a treehouse from pallets, !drills through a gas line, retiles a shower in a weekend, repairs veterans'
homes for nothing, !wires a shed wrong, !rips out asbestos, uncovers letters inside a wall, lays bricks at record
speed
how: unclog a sink, patch a wall, fix a running toilet, tile a backsplash, hang a door, caulk a tub

homeandgarden/cleaning
who: housekeeper, professional organizer, laundry expert, cleaning influencer, window washer, maid service owner
names: Clorox, Dyson, Tide, Roomba, Swiffer, Mrs. Hinch, Lysol, Good Housekeeping, Whirlpool, OxiClean, Mr. Clean,
Febreze
things: stains, vacuums, dishwashers, dust bunnies, grimy ovens, mops, laundry piles, sponges, germs, smelly drains,
odors, shower doors, detergents, junk drawers
acts: scrubs hoarders' houses for free, !finds bacteria on the remote, gets red wine out of silk, !mixes bleach with
ammonia, tests 50 vacuum models, folds a fitted sheet in ten seconds, empties an attic of 900 boxes, invents a
self-washing window
how: get wax out of carpet, clean an oven, descale a kettle, wash a pillow, banish pet hair, whiten grout

travel/airlines
who: flight attendant, pilot, airline passenger, air traffic controller, frequent flyer, baggage handler
names: Delta, Boeing 737 Max, United, Southwest, Heathrow, TSA, Qantas, JetBlue, O'Hare, Emirates, Ryanair, Airbus
things: layovers, boarding passes, legrooms, runways, carry-on bags, jetliners, overbooked flights, in-flight meals,
upgrades, frequent flyer miles, delays, security lines, emergency exits, turbulences
acts: lands with one engine, flies 19 hours nonstop to Sydney, !grounds its fleet, !drags a customer off, !loses a
violin worth thousands, !shrinks economy seats, births a child at 35000 feet, !diverts to Newfoundland
how: score a cheap ticket, pack light, beat fear of flying, survive a red-eye, get an upgrade, claim delay
compensation

travel/beaches
who: surfer, sunbather, resort owner, snorkeler, island hopper, beach lifeguard
names: Maui, Cancun, Bali, Bondi, Maldives, Waikiki, Fiji, Bora Bora, Jamaica, Myrtle Beach, Seychelles, Ibiza
things: sandcastles, palm trees, coral reefs, waves, hammocks, bikinis, lagoons, tide pools, surfboards, shark
sightings, sunsets, overwater bungalows, boardwalks, jellyfish stings
acts: rides an 80-foot swell, !closes after a great white attack, finds a message in a bottle, shuts to let the reef
recover, collects seashells for 30 years, snorkels with manta rays, !bans plastic straws, !gets caught in a rip
current
how: plan an island getaway, surf a first wave, escape a riptide, pick a reef-safe lotion, find a quiet cove, dodge
spring break crowds

travel/nationalparks
who: park ranger, hiker, backpacker, rock climber, campground host, trail crew leader
names: Yellowstone, Grand Canyon, Yosemite, Zion, Appalachian Trail, Glacier, Great Smoky Mountains, Half Dome,
Denali, Acadia, Old Faithful, Joshua Tree
things: trails, geysers, campsites, waterfalls, bear canisters, canyons, overlooks, tents, summits, bison selfies,
switchbacks, entrance fees, stargazing nights, hot springs
acts: !falls from Angels Landing, scales El Capitan without ropes, walks 2190 miles at 82, !gets too close to a bison,
raises entry prices, !spends 12 days lost in the backcountry, proposes at the rim, carries a puppy off a mountain
how: camp in the rain, stay safe around bears, hike the rim, pack a rucksack, pitch a tent, leave no trace

travel/cruises
who: cruise passenger, ship captain, cruise director, deckhand, shore excursion guide, yacht charter owner
names: Royal Caribbean, Carnival, Norwegian, Titanic, Symphony of the Seas, Viking, Nassau, Alaska's Inside Passage,
Disney Wonder, Cunard, Panama Canal, Santorini
things: cabins, buffets, ports, lifeboats, norovirus outbreaks, ocean liners, balconies, shuffleboards, gangways, deck
chairs, stopovers, river voyages, all-you-can-eat dinners, seasick pills
acts: !misses the boat in Cozumel, sails around the world for 245 days, !collides with a dock, !falls overboard at
night, launches the largest ship ever, !sneaks a cat aboard, plies fjords on batteries, !sickens 300 on board
how: avoid seasickness, choose a stateroom, save on excursions, pack for Alaska by sea, tour a port in a day, sail
solo

travel/citybreaks
who: tour guide, backpacking couple, hotel concierge, museum guard, travel blogger, subway commuter
names: Paris, Rome, Tokyo, Barcelona, Eiffel Tower, Louvre, Prague, Istanbul, Venice, New Orleans, Marriott, Amsterdam
things: hostels, cathedrals, museums, plazas, walking tours, skylines, boutique hotels, souvenir shops, night markets,
landmarks, metro passes, rooftop bars, cobbled lanes, selfie sticks
acts: !charges day-trippers an entry fee, !bans sitting on the Spanish Steps, sleeps in 200 hotels in a year, swims in
a fountain, reopens after Notre Dame blaze, lists a castle room for $30, !draws too many tourists, maps street art by
bike
how: see Rome in a weekend, avoid tourist traps, book a last-minute room, ride the metro like a local, skip museum
lines, eat well on $20 a day

travel/trains
who: train conductor, rail passenger, locomotive engineer, sleeper car attendant, railway historian, commuter
names: Amtrak, Orient Express, Shinkansen, Eurostar, Trans-Siberian, Union Pacific, Acela, Grand Central, Swiss Alps,
Big Boy, Caltrain, Hogwarts Express
things: locomotives, dining cars, tracks, tunnels, sleeper berths, steam engines, high-speed lines, derailments,
platforms, viaducts, level crossings, rail passes, whistles, depots
acts: !leaves 20 seconds early and apologizes, restores a 600-ton steam engine, !derails near a crossing, glides at
374 mph, crosses seven time zones, !cuts the beloved dining car, !gets stranded in snow for 37 hours, reopens a scenic
line
how: cross Europe by rail, sleep in a berth, save on fares, photograph steam engines, commute without stress, travel
from coast to coast on rails
"""
