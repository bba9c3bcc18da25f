"""Names and tables for made-up users and films, in KION's schema and its Russian categories."""
# ruff: noqa: RUF001

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.taste import N_GENRES, Audience, World, unit

AGES = ("age_18_24", "age_25_34", "age_35_44", "age_45_54", "age_55_64", "age_65_inf")
SEXES = ("М", "Ж")
INCOMES = ("income_0_20", "income_20_40", "income_40_60", "income_60_90", "income_90_150", "income_150_inf")
GENRES = (
    "драмы", "комедии", "триллеры", "мелодрамы", "боевики", "фантастика", "детективы", "приключения", "ужасы",
    "семейное", "мультфильм", "документальное", "историческое", "биография", "фэнтези", "криминал", "военные",
    "спорт", "музыкальные", "вестерн",
)  # fmt: skip
COUNTRIES = (
    "США", "Россия", "Великобритания", "Франция", "СССР", "Германия", "Канада", "Италия", "Испания", "Япония",
    "Корея Южная", "Турция",
)  # fmt: skip
STUDIOS = ("HBO", "Sony Pictures", "Universal", "Paramount", "Ленфильм", "Мосфильм", "Централ Партнершип")
KEYWORDS = (
    "дружба", "любовь", "месть", "побег", "тайна", "море", "космос", "дорога", "школа", "семья", "деньги", "город",
    "война", "музыка", "зима", "лето", "суд", "врач", "полиция", "шпион", "наследство", "робот", "дракон", "спорт",
    "мечта", "остров", "ограбление", "детство", "свадьба", "путешествие", "предательство", "память", "тюрьма",
    "журналист", "деревня", "корабль", "призрак", "выживание", "театр", "повар",
)  # fmt: skip
ADJECTIVES = (
    "Тихий", "Последний", "Северный", "Забытый", "Красный", "Долгий", "Чужой", "Синий", "Ночной", "Первый",
    "Старый", "Далёкий", "Золотой", "Пустой", "Быстрый", "Новый",
)  # fmt: skip
NOUNS = (
    "берег", "поезд", "город", "дом", "мост", "остров", "рассвет", "след", "ветер", "путь", "сад", "лес", "снег",
    "голос", "полёт", "вечер", "огонь", "урок", "свидетель", "гость",
)  # fmt: skip
ADJECTIVES_EN = (
    "Quiet", "Last", "Northern", "Forgotten", "Red", "Long", "Strange", "Blue", "Night", "First", "Old", "Distant",
    "Golden", "Empty", "Fast", "New",
)  # fmt: skip
NOUNS_EN = (
    "Shore", "Train", "City", "House", "Bridge", "Island", "Dawn", "Trace", "Wind", "Way", "Garden", "Forest",
    "Snow", "Voice", "Flight", "Evening", "Fire", "Lesson", "Witness", "Guest",
)  # fmt: skip
FIRST_NAMES = (
    "Анна", "Иван", "Мария", "Пётр", "Елена", "Олег", "Нина", "Павел", "Вера", "Марк", "Клара", "Антон", "Эмма",
    "Юрий", "Лиза", "Роман",
)  # fmt: skip
LAST_NAMES = (
    "Берг", "Коваль", "Мельник", "Дюваль", "Гарсиа", "Шмидт", "Танака", "Росси", "Грин", "Ли", "Новак", "Стоун",
    "Беллини", "Мороз", "Чайка", "Вольф", "Кларк", "Орлик", "Сантос", "Ким",
)  # fmt: skip
UNKNOWN_SHARE = 0.017
Strings = npt.NDArray[np.str_]


def users_table(
    user_ids: npt.NDArray[np.int64], audience: Audience, rng: np.random.Generator
) -> pl.DataFrame:
    """KION's users: of those who watch about one in eight is missing; a few values are unknown."""
    n = len(user_ids)
    has_kids = rng.random(n) < np.array((0.1, 0.3, 0.45, 0.35, 0.15, 0.05))[audience.age]
    table = pl.DataFrame(
        {
            "user_id": user_ids,
            "age": np.array(AGES)[audience.age],
            "income": np.array(INCOMES)[
                rng.choice(len(INCOMES), n, p=(0.025, 0.56, 0.29, 0.085, 0.03, 0.01))
            ],
            "sex": np.array(SEXES)[audience.sex],
            "kids_flg": has_kids.astype(np.int64),
        }
    )
    table = table.with_columns(_forget(table[name], UNKNOWN_SHARE, rng) for name in ("age", "income", "sex"))
    return table.filter(pl.Series((audience.n_events == 0) | (rng.random(n) > 0.13)))


def items_table(
    item_ids: npt.NDArray[np.int64], world: World, first_year: int, rng: np.random.Generator
) -> pl.DataFrame:
    """KION's items. Genres and keywords follow taste; the rest is colour."""
    n = len(item_ids)
    adjective, noun = rng.integers(len(ADJECTIVES), size=n), rng.integers(len(NOUNS), size=n)
    serial = [f" {i}" if i else "" for i in _occurrence(adjective * len(NOUNS) + noun).tolist()]
    series = rng.random(n) < 0.25
    genres = _joined(GENRES, world.item_genres)
    keywords = _keywords(world, rng)
    film = [f"{ADJECTIVES[a]} {NOUNS[b]}{s}" for a, b, s in zip(adjective, noun, serial, strict=True)]
    original = [
        f"{ADJECTIVES_EN[a]} {NOUNS_EN[b]}{s}" for a, b, s in zip(adjective, noun, serial, strict=True)
    ]
    people = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    year = np.minimum(first_year + world.release_day // 365, first_year + 1).astype(np.float64)
    age_limit = np.array((0.0, 6.0, 12.0, 16.0, 18.0))[rng.choice(5, n, p=(0.08, 0.12, 0.25, 0.37, 0.18))]
    table = pl.DataFrame(
        {
            "item_id": item_ids,
            "content_type": np.where(series, "series", "film"),
            "title": film,
            "title_orig": _forget(pl.Series(original), 0.3, rng),
            "release_year": year,
            "genres": genres,
            "countries": _forget(_some(COUNTRIES, n, 2, rng), 0.01, rng),
            "for_kids": _forget(pl.Series((age_limit <= 6.0).astype(np.float64)), 0.9, rng),
            "age_rating": age_limit,
            "studios": _forget(_some(STUDIOS, n, 1, rng), 0.9, rng),
            "directors": _forget(_some(people[:80], n, 1, rng), 0.1, rng),
            "actors": _forget(_some(people, n, 4, rng), 0.17, rng),
            "description": [f"{g.capitalize()}: {k}." for g, k in zip(genres, keywords, strict=True)],
            "keywords": keywords,
        }
    )
    return table.with_columns(
        _forget(table["release_year"], 0.006, rng), _forget(table["keywords"], 0.03, rng)
    )


def _forget(column: pl.Series, share: float, rng: np.random.Generator) -> pl.Series:
    """Leave some values unknown."""
    return column.set(pl.Series(rng.random(len(column)) < share), None)


def _occurrence(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64 (n,): 0 for a value's first occurrence, 2 for its second, 3, ...: as sequels are numbered."""
    earlier = (
        pl.Series("v", values).to_frame().select(pl.int_range(pl.len()).over("v")).to_series().to_numpy()
    )
    return np.where(earlier > 0, earlier + 1, 0)


def _joined(names: tuple[str, ...], flags: npt.NDArray[np.bool_]) -> list[str]:
    return [", ".join(names[i] for i in np.flatnonzero(row)) for row in flags]


def _some(names: list[str] | tuple[str, ...], n: int, most: int, rng: np.random.Generator) -> pl.Series:
    """Draw n texts of one to `most` names, the first names of the list being the commonest."""
    weights = 1.0 / np.arange(1, len(names) + 1) ** 0.8
    drawn = rng.choice(len(names), (n, most), p=weights / weights.sum())
    counts = rng.integers(1, most + 1, n)
    return pl.Series(
        [", ".join(dict.fromkeys(names[i] for i in row[:c])) for row, c in zip(drawn, counts, strict=True)]
    )


def _keywords(world: World, rng: np.random.Generator) -> list[str]:
    """Three words each: those nearest the item's vector in a space of words, give or take."""
    words = unit(rng.normal(size=(len(KEYWORDS), world.item_vectors.shape[1])))
    nearness = world.item_vectors @ words.T + rng.normal(0, 0.15, (len(world.item_vectors), len(KEYWORDS)))
    return [", ".join(KEYWORDS[i] for i in row) for row in np.argsort(-nearness, axis=1)[:, :3]]


if len(GENRES) != N_GENRES:
    raise AssertionError("a genre vector has a name")
